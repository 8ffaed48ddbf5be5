// What dockerode does with images. Arguments: the socket, an open registry, one with a password (ann, right), a root's archive.
const Docker = require('dockerode')
const fs = require('fs')
const zlib = require('zlib')
const [socketPath, open, guarded, root] = process.argv.slice(2)
const docker = new Docker({ socketPath })
const ann = { username: 'ann', password: 'right', serveraddress: guarded }

const collect = stream => new Promise((done, failed) => {
  const parts = []
  stream.on('data', part => parts.push(part))
  stream.on('end', () => done(Buffer.concat(parts)))
  stream.on('error', failed)
})
const progress = stream => new Promise((done, failed) =>
  docker.modem.followProgress(stream, (error, all) => error ? failed(error) : done(all)))
const want = (what, got, expected) => {
  if (JSON.stringify(got) !== JSON.stringify(expected)) throw Error(`${what}: ${JSON.stringify(got)}, want ${JSON.stringify(expected)}`)
}
const refused = async (what, code, call) => want(what, await call.then(() => 0, error => error.statusCode), code)

async function main () {
  const imported = await progress(await docker.importImage(fs.createReadStream(root), { repo: 'box', tag: '1', changes: 'CMD ["sh"]' }))
  const id = imported.pop().status
  const box = docker.getImage('box:1')
  want('inspect', [(await box.inspect()).Id, (await box.inspect()).Config.Cmd], [id, ['sh']])
  want('history', (await box.history()).map(line => line.Tags), [['box:1']])
  want('list', (await docker.listImages({ filters: { reference: ['box'] } })).map(i => i.Id), [id])
  want('list, digests', (await docker.listImages({ digests: true }))[0].RepoDigests, [`box@${id}`])
  await refused('nothing', 404, docker.getImage('nosuch').inspect())
  await refused('a bad name', 400, box.tag({ repo: 'UPPER' }))

  for (const [host, authconfig] of [[open, undefined], [guarded, ann]]) {
    const name = `${host}/team/app:1`
    await box.tag({ repo: `${host}/team/app`, tag: '1' })
    const pushed = await progress(await docker.getImage(name).push({ authconfig }))
    want('push', pushed.filter(m => m.aux).pop().aux.Digest, id)
    want('distribution', (await docker.getImage(name).distribution({ authconfig })).Descriptor.digest, id)
    await docker.getImage(name).remove()
    await progress(await docker.pull(name, { authconfig }))
    want('pull', (await docker.getImage(name).inspect()).Id, id)
    await docker.getImage(name).remove()
  }
  await box.tag({ repo: `${guarded}/team/app`, tag: '2' })
  const denied = await progress(await docker.getImage(`${guarded}/team/app:2`).push({}))
  want('push without password', denied.pop().errorDetail.message, 'denied: requested access to the resource is denied')
  await refused('pull of nothing', 404, docker.pull(`${open}/none:1`))
  want('login', (await docker.checkAuth(ann)).Status, 'Login Succeeded')
  await refused('a wrong password', 401, docker.checkAuth({ ...ann, password: 'wrong' }))
  want('search', (await docker.searchImages({ term: `${guarded}/app`, authconfig: ann })).map(r => r.name), ['team/app', 'app'])

  const archive = await collect(await docker.getImage('box:1').get())
  await docker.getImage(id).remove({ force: true })
  want('load', (await progress(await docker.loadImage(zlib.gzipSync(archive)))).pop().stream, 'Loaded image: box:1\n')
  const user = await docker.createContainer({ Image: 'box:1' })
  await refused('removal of one in use', 409, docker.getImage('box:1').remove())
  await user.remove()
  want('removal', await docker.getImage('box:1').remove(), [{ Untagged: 'box:1' }, { Deleted: id }])
  want('nothing is left', await docker.listImages(), [])
  console.log('done')
  process.exit(0)
}
main().catch(error => { console.error(error); process.exit(1) })
