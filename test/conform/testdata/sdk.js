// What dockerode does, on busybox. Arguments: the socket, an image that can be pulled.
const Docker = require('dockerode')
const { PassThrough } = require('stream')
const docker = new Docker({ socketPath: process.argv[2] })

const collect = stream => new Promise((done, failed) => {
  const parts = []
  stream.on('data', part => parts.push(part))
  stream.on('end', () => done(Buffer.concat(parts).toString('latin1')))
  stream.on('error', failed)
})
const progress = stream => new Promise((done, failed) =>
  docker.modem.followProgress(stream, (error, all) => error ? failed(error) : done(all)))
const want = (what, got, expected) => {
  if (JSON.stringify(got) !== JSON.stringify(expected)) throw Error(`${what}: ${JSON.stringify(got)}, want ${JSON.stringify(expected)}`)
}
const refused = async (what, code, call) => want(what, await call.then(() => 0, error => error.statusCode), code)
const frame = text => String.fromCharCode(1, 0, 0, 0, 0, 0, 0, text.length) + text

async function main () {
  for (let n = 0; n < 5; n++) { // it waits after the start, when the container may have gone
    const out = new PassThrough()
    const first = new Promise(resolve => out.once('data', resolve))
    want('run', (await docker.run('busybox', ['sh', '-c', 'echo hi; exit 3'], [out, new PassThrough()], { Tty: false, HostConfig: { AutoRemove: true } }))[0], { StatusCode: 3 })
    want('its output', (await first).toString(), 'hi\n')
  }
  const pulled = await progress(await docker.pull(process.argv[3]))
  want('pull', pulled[pulled.length - 1].status.startsWith('Status: Downloaded newer image'), true)

  const reader = await docker.createContainer({
    name: 'reader', Image: 'busybox', Cmd: ['sh', '-c', 'read x; echo got $x; cat; exit 5'], OpenStdin: true, StdinOnce: true
  })
  const stream = await reader.attach({ stream: true, stdin: true, stdout: true, stderr: true, hijack: true })
  const output = collect(stream)
  await reader.start()
  stream.end('one\n')
  want('attach', await output, frame('got one\n'))
  want('wait', await reader.wait(), { StatusCode: 5 })
  want('logs', (await reader.logs({ stdout: true, stderr: true })).toString('latin1'), frame('got one\n'))
  await refused('stop', 304, reader.stop())
  await reader.remove()
  await refused('remove', 404, reader.remove())

  const loop = await docker.createContainer({ name: 'loop', Image: 'busybox', Cmd: ['sh', '-c', 'while :; do echo again; sleep .1; done'] })
  await loop.start()
  await refused('start', 304, loop.start())
  const follow = await loop.logs({ follow: true, stdout: true })
  await new Promise(resolve => { let n = 0; follow.on('data', () => { if (++n === 3) { follow.destroy(); resolve() } }) })
  let exec = await loop.exec({ Cmd: ['cat'], AttachStdin: true, AttachStdout: true })
  const typed = await exec.start({ hijack: true, stdin: true })
  const echoed = collect(typed)
  typed.end('abc')
  want('exec', [await echoed, (await exec.inspect()).ExitCode], [frame('abc'), 0])
  exec = await loop.exec({ Cmd: ['sh', '-c', 'echo o; exit 3'], AttachStdout: true })
  want('exec without hijack', [await collect(await exec.start({})), (await exec.inspect()).ExitCode], [frame('o\n'), 3])
  exec = await loop.exec({ Cmd: ['nosuch'], AttachStdout: true })
  want('exec of nothing', [/executable file not found/.test(await collect(await exec.start({ hijack: true, stdin: true }))), (await exec.inspect()).ExitCode], [true, 127])
  const events = await docker.getEvents({ filters: { container: ['loop'] } })
  const first = new Promise(resolve => events.once('data', data => resolve(JSON.parse(data).Action)))
  await loop.pause()
  want('events', await first, 'pause')
  events.destroy()
  await loop.unpause()
  await loop.remove({ force: true })

  const more = await docker.createContainer({ name: 'more', Image: 'busybox', Cmd: ['sh', '-c', 'echo made >/made; exec top -b'], HostConfig: { Memory: 64 << 20 } })
  await more.start()
  const ready = await more.exec({ Cmd: ['sh', '-c', 'until test -s /made; do :; done'], AttachStdout: true })
  await collect(await ready.start({}))
  want('top', (await more.top({ ps_args: '-o pid,comm' })).Processes[0][1], 'top')
  const stats = await more.stats({ stream: false })
  want('stats', [stats.name, stats.memory_stats.limit], ['/more', 64 << 20])
  const live = await more.stats({ stream: true })
  want('stats in a stream', JSON.parse((await new Promise(resolve => live.once('data', resolve))).toString()).name, '/more')
  live.destroy()
  want('get', (await collect(await more.getArchive({ path: '/made' }))).includes('made\n'), true)
  await refused('get of nothing', 404, more.getArchive({ path: '/nosuch' }))
  await more.putArchive(await more.getArchive({ path: '/made' }), { path: '/tmp' })
  want('diff', (await more.changes()).filter(c => c.Path.endsWith('made')), [{ Kind: 1, Path: '/made' }, { Kind: 1, Path: '/tmp/made' }])
  want('export', (await collect(await more.export())).includes('tmp/made'), true)
  const made = await more.commit({ repo: 'sdk', tag: 'made', changes: 'CMD ["cat","/tmp/made"]', pause: true })
  want('commit', (await docker.getImage('sdk:made').inspect()).Id.startsWith(made.Id.slice(0, 20)), true)
  await more.update({ Memory: 32 << 20, MemorySwap: 64 << 20 })
  want('update', (await more.inspect()).HostConfig.Memory, 32 << 20)
  await more.rename({ name: 'more2' })
  await more.kill()
  want('wait', (await more.wait({ condition: 'not-running' })).StatusCode, 137)
  want('prune', (await docker.pruneContainers()).ContainersDeleted, [more.id])
  await docker.getImage('sdk:made').remove()

  const archive = await docker.getImage('busybox').get()
  want('load', (await progress(await docker.loadImage(archive))).pop().stream, 'Loaded image: busybox:latest\n')
  await docker.getImage('busybox').tag({ repo: 'sdk', tag: '1' })
  want('rmi', await docker.getImage('sdk:1').remove(), [{ Untagged: 'sdk:1' }])
  console.log('done')
  process.exit(0)
}
main().catch(error => { console.error(error); process.exit(1) })
