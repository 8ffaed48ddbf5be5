package instruction

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"berth/fault"
)

func TestApply(t *testing.T) {
	var c dockerspec.DockerOCIImageConfig
	err := Apply(&c, []string{
		`ENV A=1 B="two words"`, `ENV PATH=/x:$A`, `ENV A=3`, `CMD echo $A`, `ENTRYPOINT ["/bin/run", "-x"]`, `CMD ["a", "b"]`,
		`EXPOSE 80 53/udp 8000-8002`, `LABEL k=v "other key"="a b"`, `USER ann:staff`, `VOLUME /data /more`, `WORKDIR /srv`, `WORKDIR app`,
		`STOPSIGNAL SIGINT`, `ONBUILD RUN true`, `HEALTHCHECK --interval=5s CMD curl localhost`,
	})
	if err != nil {
		t.Fatal(err)
	}
	got, _ := json.Marshal(c)
	want := `{"User":"ann:staff","ExposedPorts":{"53/udp":{},"80/tcp":{},"8000/tcp":{},"8001/tcp":{},"8002/tcp":{}},` +
		`"Env":["A=3","B=two words","PATH=/x:1"],"Entrypoint":["/bin/run","-x"],"Cmd":["a","b"],"Volumes":{"/data":{},"/more":{}},` +
		`"WorkingDir":"/srv/app","Labels":{"k":"v","other key":"a b"},"StopSignal":"SIGINT",` +
		`"Healthcheck":{"Test":["CMD-SHELL","curl localhost"],"Interval":5000000000},"OnBuild":["RUN true"]}`
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	shell := dockerspec.DockerOCIImageConfig{}
	shell.Cmd = []string{"old"}
	if err := Apply(&shell, []string{"ENTRYPOINT run me"}); err != nil || !reflect.DeepEqual(shell.Entrypoint, []string{"/bin/sh", "-c", "run me"}) || shell.Cmd != nil {
		t.Errorf("got %+v, %v", shell, err)
	}
	for _, line := range []string{"RUN true", "FROM x", "COPY a b", "EXPOSE x", "EXPOSE 70000", "EXPOSE 9-3", "EXPOSE 1/icmp", "NONSENSE", "ENV", "VOLUME", "HEALTHCHECK maybe"} {
		if err := Apply(&c, []string{line}); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: got %v", line, err)
		}
	}
}
