package conform

import (
	"strings"
	"testing"
)

// TestBuildxCaches has buildx give what steps came to to a registry, take it from there, and prune by filters.
func TestBuildxCaches(t *testing.T) {
	k := newKit(t, map[string]string{"Dockerfile": "FROM busybox AS early\nRUN echo early >/a; echo was-$((3+4))\nFROM busybox\nCOPY --from=early /a /b\n"})
	ref := registry(t) + "/team/cache:1"
	k.wants(k.run("buildx", "build", "-t", "app", "--cache-to", "type=registry,ref="+ref+",mode=max", "."), "#", "exporting cache to registry", "was-7")
	k.run("rmi", "app")
	k.wants(k.run("buildx", "du", "--filter", "type=regular"), "RECLAIMABLE")
	k.wants(k.run("buildx", "prune", "-f", "--max-used-space", "1TB", "--min-free-space", "1B"), "Total:")
	k.run("buildx", "prune", "-af", "--filter", "type=regular")
	out := k.run("buildx", "build", "-t", "app", "--cache-from", "type=registry,ref="+ref, ".")
	k.wants(out, "importing cache manifest from "+ref, "CACHED")
	k.lacks(out, "was-7")
	k.wants(k.run("run", "--rm", "app", "cat", "/b"), "early\n")

	// An image that carries its own, as Docker's users have it.
	k.run("buildx", "build", "-t", ref+"-image", "--cache-to", "type=inline", "--push", ".")
	k.run("rmi", "-f", "app", ref+"-image")
	k.run("buildx", "prune", "-af")
	out = k.run("build", "-t", "app", "--cache-from", ref+"-image", ".")
	k.wants(out, "importing cache manifest from "+ref+"-image", "was-7") // the image has nothing of the early stage
	if strings.Count(out, "CACHED") == 0 {
		t.Errorf("nothing was cached:\n%s", out)
	}
	k.wants(k.fails("buildx", "build", "--cache-to", "type=local,dest=here", "."), "local")
}
