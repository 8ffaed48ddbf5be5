# What Docker's own library for Python does, on busybox. Argument: an image that can be pulled.
import io, sys, tarfile, threading, time
import docker

client = docker.from_env(timeout=20)


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


want("ping", client.ping(), True)
want("run", client.containers.run("busybox", "echo hi", remove=True), b"hi\n")
refused("run: code", docker.errors.ContainerError, "exit status 3",
        lambda: client.containers.run("busybox", "sh -c 'exit 3'", remove=True))
refused("run: no command", docker.errors.APIError, "executable file not found in $PATH",
        lambda: client.containers.run("busybox", "nosuch", name="nocmd"))
client.containers.get("nocmd").remove()
want("pull", client.images.pull(sys.argv[1]).tags, [sys.argv[1]])
refused("image", docker.errors.ImageNotFound, "No such image", lambda: client.images.get("nosuch"))

c = client.containers.run(
    "busybox", ["sh", "-c", "echo started; exec cat"], detach=True, stdin_open=True, name="sdk", labels={"a": "b"},
    environment={"X": "1"}, ports={"80/tcp": None}, volumes={"/tmp": {"bind": "/m", "mode": "ro"}}, mem_limit="64m",
    tmpfs={"/t": ""}, cap_add=["NET_ADMIN"], init=True, shm_size="1m", nano_cpus=500000000, pids_limit=50,
    mounts=[docker.types.Mount("/v", "sdkvol", labels={"made": "here"})], ulimits=[docker.types.Ulimit(name="nofile", soft=100, hard=200)])
c.reload()
want("status", (c.status, c.labels, c.image.tags), ("running", {"a": "b"}, ["busybox:latest"]))
want("a mount's labels", client.volumes.get("sdkvol").attrs["Labels"], {"made": "here"})
want("exec", tuple(c.exec_run("sh -c 'echo $X; ulimit -n'")), (0, b"1\n100\n"))
want("exec demux", tuple(c.exec_run("sh -c 'echo o; echo e >&2; exit 5'", demux=True)), (5, (b"o\n", b"e\n")))
want("exec stream", b"".join(c.exec_run("sh -c 'echo 1; echo 2'", stream=True).output), b"1\n2\n")
want("exec tty", c.exec_run("tty", tty=True).output, b"/dev/pts/0\r\n")
want("exec as a user", c.exec_run("id -u", user="user").output, b"1000\n")
prepared = client.api.exec_create(c.id, "sh -c 'exit 4'")["Id"]
client.api.exec_start(prepared)
ended = client.api.exec_inspect(prepared)
want("an ended exec", (ended["ExitCode"], ended["Pid"] > 1, client.api.inspect_container(c.id)["ExecIDs"]), (4, True, None))
code, output = c.exec_run("nosuch")
if code != 127 or b"executable file not found" not in output:
    sys.exit(f"exec of nothing: {code}, {output!r}")


def read(s):
    data = b""
    while chunk := s.recv(4096):
        data += chunk
    return data


s = c.exec_run("cat", socket=True, stdin=True).output._sock
s.sendall(b"abc\n")
s.shutdown(1)
want("exec socket", read(s), b"\x01\0\0\0\0\0\0\4abc\n")
s.close()

# Frames or not is said by the start, not by the exec.
prepared = client.api.exec_create(c.id, "stty size", tty=True)["Id"]
want("exec with a terminal, in frames", client.api.exec_start(prepared, demux=True)[1], None)
prepared = client.api.exec_create(c.id, "cat", tty=True, stdin=True)["Id"]
s = client.api.exec_start(prepared, tty=True, socket=True)
client.api.exec_resize(prepared, height=20, width=30)
s.close()

# The end of the exec above may be told only now, so the events are named.
events = client.events(decode=True, filters={"container": c.id, "event": ["pause", "unpause", "rename"]})
seen = []
listener = threading.Thread(target=lambda: seen.extend(next(events)["Action"] for _ in range(3)), daemon=True)
listener.start()
c.pause()
c.unpause()
c.rename("sdk2")
listener.join(10)
want("events", seen, ["pause", "unpause", "rename"])
events.close()

follow = c.logs(stream=True, follow=True)
want("logs", (c.logs(), next(follow)), (b"started\n", b"started\n"))
attached = c.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})._sock
attached.sendall(b"typed\n")
want("attach", attached.recv(100), b"\x01\0\0\0\0\0\0\6typed\n")
attached.close()
want("follow", next(follow), b"typed\n")
c.kill()
want("wait", c.wait()["StatusCode"], 137)
want("list", [x.name for x in client.containers.list(all=True, filters={"exited": 137})], ["sdk2"])
c.start()
c.restart(timeout=0)
c.remove(force=True, v=True)
refused("get", docker.errors.NotFound, "No such container", lambda: client.containers.get("sdk2"))

# The rest of what can be done to a container.
c = client.containers.run("busybox", ["sh", "-c", "trap 'exit 6' TERM; while :; do sleep 0.1; done"], detach=True, name="more", volumes=["/anonymous"],
                          healthcheck={"test": ["CMD", "true"], "interval": 100_000_000}, restart_policy={"Name": "on-failure", "MaximumRetryCount": 1})
want("top", [p[-1][:7] for p in c.top()["Processes"]][0], "sh -c t")
want("top's columns", c.top(ps_args="-o pid,comm")["Titles"], ["PID", "COMMAND"])
once = c.stats(stream=False)
want("stats", (once["name"], once["memory_stats"]["usage"] > 0, once["networks"].keys()), ("/more", True, {"eth0": 0}.keys()))
streamed = c.stats(decode=True)
want("stats in a stream", [next(streamed)["id"], next(streamed)["id"]], [c.id, c.id])
streamed.close()
text = b"put here\n"
archive = io.BytesIO()
with tarfile.open(fileobj=archive, mode="w") as t:
    entry = tarfile.TarInfo("put")
    entry.size, entry.uid, entry.mode = len(text), 1000, 0o640
    t.addfile(entry, io.BytesIO(text))
want("put", c.put_archive("/tmp", archive.getvalue()), True)
want("what was put", c.exec_run("stat -c '%u %a' /tmp/put").output, b"1000 640\n")
chunks, stat = c.get_archive("/tmp/put")
want("get's head", (stat["name"], stat["size"]), ("put", len(text)))
want("get", tarfile.open(fileobj=io.BytesIO(b"".join(chunks))).extractfile("put").read(), text)
refused("get of nothing", docker.errors.NotFound, "Could not find the file /nosuch", lambda: c.get_archive("/nosuch"))
want("diff", [x for x in c.diff() if x["Path"] == "/tmp/put"], [{"Path": "/tmp/put", "Kind": 1}])
with tarfile.open(fileobj=io.BytesIO(b"".join(c.export()))) as t:
    want("export", t.extractfile("tmp/put").read(), text)
made = c.commit(repository="sdk", tag="made", message="said", author="me", changes=["ENV Y=2", "LABEL z=3"])
want("commit", (made.tags, made.labels, client.containers.run(made, "sh -c 'cat /tmp/put; echo $Y'", entrypoint="", remove=True)), (["sdk:made"], {"z": "3"}, text + b"2\n"))
c.update(mem_limit="128m", memswap_limit="256m", cpu_shares=512, restart_policy={"Name": "no"})
c.reload()
want("update", (c.attrs["HostConfig"]["Memory"], c.attrs["HostConfig"]["CpuShares"], c.attrs["HostConfig"]["RestartPolicy"]["Name"]), (128 << 20, 512, "no"))
while c.attrs["State"]["Health"]["Status"] != "healthy":
    time.sleep(0.05)
    c.reload()
refused("resize", docker.errors.APIError, "", lambda: client.api.resize("nosuch", 1, 1))
c.resize(20, 80)
c.stop(timeout=5)
want("wait for one that has ended", c.wait(condition="not-running")["StatusCode"], 6)
want("logs of nothing", c.logs(tail=1, timestamps=True, since=1), b"")
want("prune of the old", client.containers.prune(filters={"until": "24h"})["ContainersDeleted"] or [], [])
want("prune", c.id in client.containers.prune()["ContainersDeleted"], True)
client.images.remove("sdk:made")

quick = client.containers.run("busybox", "sh -c 'exit 4'", detach=True, auto_remove=True)
want("wait when it has gone", quick.wait()["StatusCode"], 4)
image = client.images.get("busybox")
want("load", [x.tags for x in client.images.load(b"".join(image.save(named=True)))], [["busybox:latest"]])
want("tag", (image.tag("sdk", "1"), client.images.remove("sdk:1")), (True, None))
volume = client.volumes.create("sdkvol2", labels={"l": "1"})
want("volumes", [v.name for v in client.volumes.list(filters={"label": "l=1"})], ["sdkvol2"])
volume.remove()
want("networks", sorted(n.name for n in client.networks.list()), ["bridge", "host", "none"])
want("plugins", client.plugins.list(), [])
client.close()
print("done")
