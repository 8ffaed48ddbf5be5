# What Docker's own library for Python does with images. Arguments: an open registry, one with a password (ann, right), a root's archive.
import gzip, io, sys, tempfile
import docker

open_, guarded, root = sys.argv[1:4]
client = docker.from_env(timeout=20)
api = client.api


def want(what, got, expected):
    if got != expected:
        sys.exit(f"{what}: {got!r}, want {expected!r}")


def refused(what, error, words, call):
    try:
        got = call()
    except error as e:
        if words not in str(e):
            sys.exit(f"{what}: {e}, want {words!r}")
        return
    sys.exit(f"{what}: {got!r}, want {error.__name__}")


# Import, in all ways that there are.
out = api.import_image_from_file(root, repository="box", tag="1", changes=['CMD ["sh"]', "LABEL part=base"])
want("import", out.strip().startswith('{"status":"sha256:'), True)
with open(root, "rb") as f:
    want("import of a stream", "sha256:" in api.import_image_from_stream(iter(lambda: f.read(1 << 16), b""), repository="streamed"), True)
with open(root, "rb") as f:
    want("import of data", "sha256:" in api.import_image_from_data(f.read(), repository="data"), True)
refused("import from nowhere", docker.errors.APIError, "", lambda: api.import_image_from_url("http://127.0.0.1:1/no.tar", repository="none"))
image = client.images.get("box:1")
want("tags", image.tags, ["box:1"])
want("labels", image.labels, {"part": "base"})
want("history", [(h["Comment"], h["Tags"]) for h in image.history()], [("Imported from -", ["box:1"])])

# Names and lists.
want("tag", image.tag("box", tag="2"), True)
want("tag with a registry", image.tag(f"{open_}/team/box", "1"), True)
image.reload()
want("tags", sorted(image.tags), sorted(["box:1", "box:2", f"{open_}/team/box:1"]))
want("list by name", [i.id for i in client.images.list(name="box")], [image.id])
want("list by label", [i.id for i in client.images.list(filters={"label": "part=base"})], [image.id])
want("list, dangling", client.images.list(filters={"dangling": True}), [])
want("list, all", len(client.images.list(all=True)), 3)
want("list of IDs", image.id in api.images(quiet=True), True)
refused("list by nothing", docker.errors.APIError, "invalid filter", lambda: client.images.list(filters={"nothing": "x"}))
row = [i for i in api.images() if "box:1" in i["RepoTags"]][0]
want("a row", (row["Id"], row["Labels"], row["SharedSize"], row["Size"] > 1000000), (image.id, {"part": "base"}, -1, True))
details = api.inspect_image("box:1")
want("inspect", (details["Os"], details["RootFS"]["Type"], details["Config"]["Cmd"], details["GraphDriver"]["Name"]), ("linux", "layers", ["sh"], "overlay2"))
refused("inspect nothing", docker.errors.ImageNotFound, "No such image", lambda: client.images.get("nosuch"))

# Push and pull, plainly.
pushed = list(api.push(f"{open_}/team/box", "1", stream=True, decode=True))
want("push: first", pushed[0]["status"], f"The push refers to repository [{open_}/team/box]")
record = [m["aux"] for m in pushed if "aux" in m][-1]
want("push: record", (record["Tag"], record["Digest"]), ("1", image.id))
want("push of nothing", "errorDetail" in list(api.push(f"{open_}/team/none", "1", stream=True, decode=True))[-1], True)
remote = client.images.get_registry_data(f"{open_}/team/box:1")
want("registry data", (remote.id, remote.has_platform("linux/amd64"), remote.has_platform("windows/amd64")), (image.id, True, False))
client.images.remove(f"{open_}/team/box:1")
want("pull of registry data", remote.pull().id, image.id)
client.images.remove(f"{open_}/team/box@{image.id}")
want("pull", client.images.pull(f"{open_}/team/box", tag="1").id, image.id)
client.images.get("streamed").tag(f"{open_}/team/box", "2")
client.images.push(f"{open_}/team/box", "2")
client.images.remove(f"{open_}/team/box:2")
want("pull of all tags", len(client.images.pull(f"{open_}/team/box", all_tags=True)), 2)
last = list(api.pull(f"{open_}/team/box", tag="1", stream=True, decode=True))[-1]
want("pull again", last["status"], f"Status: Image is up to date for {open_}/team/box:1")
refused("pull of nothing", docker.errors.NotFound, "", lambda: client.images.pull(f"{open_}/team/none"))
refused("pull of a wrong tag", docker.errors.NotFound, "not found", lambda: client.images.pull(f"{open_}/team/box", tag="none"))
refused("registry data of nothing", docker.errors.APIError, "", lambda: client.images.get_registry_data(f"{open_}/team/none"))

# With a password.
app = f"{guarded}/team/app"
image.tag(app, "1")
want("push without password", "errorDetail" in list(api.push(app, "1", stream=True, decode=True))[-1], True)
refused("a wrong password", docker.errors.APIError, "unauthorized", lambda: client.login("ann", "wrong", registry=guarded, reauth=True))
ann = {"username": "ann", "password": "right"}
want("push with a password", list(api.push(app, "1", stream=True, decode=True, auth_config=ann))[-1].get("aux", {}).get("Digest"), image.id)
client.images.remove(f"{app}:1")
refused("pull without password", docker.errors.APIError, "", lambda: client.images.pull(app, tag="1"))
want("pull with a password", client.images.pull(app, tag="1", auth_config=ann).id, image.id)
want("registry data with a password", client.images.get_registry_data(f"{app}:1", auth_config=ann).id, image.id)
want("login", client.login("ann", "right", registry=guarded, reauth=True)["Status"], "Login Succeeded")
want("pull after login", client.images.pull(app, tag="1").id, image.id)

# Archives.
archive = b"".join(image.save(named=True))
many = b"".join(api.get_image("streamed"))
client.images.remove("streamed")
for ref in list(image.tags) + [f"{app}:1"]:
    client.images.remove(ref, force=True)
refused("it is gone", docker.errors.ImageNotFound, "No such image", lambda: client.images.get("box:1"))
want("load", [i.id for i in client.images.load(archive)], [image.id])
want("load of gzip", ["streamed:latest" in i.tags for i in client.images.load(gzip.compress(many))], [True])
refused("load of nothing sensible", (docker.errors.ImageLoadError, docker.errors.APIError), "", lambda: client.images.load(b"abc" * 1000))
refused("save of nothing", docker.errors.APIError, "No such image", lambda: b"".join(api.get_image("nosuch")))

# Removal.
user = client.containers.create("data:latest", "sh")
refused("removal of one in use", docker.errors.APIError, "conflict", lambda: client.images.remove("data:latest"))
user.remove()
client.images.remove("data:latest")
client.images.remove(f"{open_}/team/box:2")
steps = api.remove_image("streamed")
want("removal", (steps[0], "Deleted" in steps[-1]), ({"Untagged": "streamed:latest"}, True))
image = client.images.get(image.id)
for tag in image.tags:
    client.images.remove(tag)
want("nothing is left", [i.tags for i in client.images.list() if i.tags and "127.0.0.1" not in i.tags[0]], [])
print("done")
