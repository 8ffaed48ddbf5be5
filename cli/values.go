package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// optionValues are what a shell offers for an option's value; "NAME" stands for the containers, "container:NAME" for the way to join one.
var optionValues = map[string][]string{
	"attach":            {"stdin", "stdout", "stderr"},
	"cap-add":           capabilityNames,
	"cap-drop":          capabilityNames,
	"cgroupns":          {"host", "private"},
	"health-on-failure": {"none", "kill", "restart", "stop"},
	"ipc":               {"none", "private", "shareable", "host", "container:NAME"},
	"isolation":         {"default"},
	"link":              {"NAME"},
	"log-driver":        {"json-file", "local", "journald", "syslog", "gelf", "fluentd", "none"},
	"log-opt":           {"max-size=", "max-file=", "compress=", "labels=", "labels-regex=", "env=", "env-regex=", "tag=", "mode=", "max-buffer-size="},
	"mount":             {"type=bind,src=", "type=volume,src=", "type=tmpfs,dst=", "type=image,src="},
	"progress":          {"auto", "none", "plain", "quiet", "rawjson", "tty"},
	"call":              {"build", "check", "outline", "targets"},
	"network":           {"bridge", "host", "none", "container:NAME"},
	"pid":               {"host", "container:NAME"},
	"platform":          {"linux/386", "linux/amd64", "linux/arm/v6", "linux/arm/v7", "linux/arm64", "linux/loong64", "linux/mips64le", "linux/ppc64le", "linux/riscv64", "linux/s390x"},
	"pull":              {"always", "missing", "never"},
	"restart":           {"no", "always", "on-failure", "unless-stopped"},
	"security-opt":      {"no-new-privileges", "seccomp=", "seccomp=unconfined", "apparmor=", "label=", "systempaths=unconfined", "writable-cgroups="},
	"signal":            signalNames,
	"stop-signal":       signalNames,
	"type":              {"container", "image", "network", "volume"},
	"ulimit":            {"core=", "cpu=", "data=", "fsize=", "locks=", "memlock=", "msgqueue=", "nice=", "nofile=", "nproc=", "rss=", "rtprio=", "rttime=", "sigpending=", "stack="},
	"userns":            {"host", "auto"},
	"uts":               {"host"},
	"volumes-from":      {"NAME"},
}

// filterKeys are the filters of the commands that have some.
var filterKeys = map[string][]string{
	"container ls": {"ancestor=", "annotation=", "before=", "exited=", "expose=", "health=healthy", "health=none", "health=starting", "health=unhealthy", "id=", "is-task=", "label=", "name=", "network=", "publish=", "since=",
		"status=created", "status=dead", "status=exited", "status=paused", "status=removing", "status=restarting", "status=running", "volume="},
	"container prune": {"label=", "label!=", "until="},
	"image prune":     {"label=", "label!=", "until="},
	"network prune":   {"label=", "label!=", "until="},
	"system prune":    {"label=", "label!=", "until="},
	"volume ls":       {"dangling=false", "dangling=true", "driver=", "label=", "name="},
	"volume prune":    {"label=", "label!="},
	"image ls":        {"before=", "dangling=false", "dangling=true", "label!=", "label=", "reference=", "since=", "until="},
	"search":          {"is-official=false", "is-official=true", "stars="},
	"system events":   {"container=", "daemon=", "event=", "image=", "label=", "network=", "scope=", "type=container", "type=daemon", "type=image", "type=network", "type=volume", "volume="},
}

var capabilityNames = strings.Fields(`ALL AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID
	IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID
	SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM`)

var signalNames = strings.Fields("ABRT ALRM CONT HUP INT KILL PIPE QUIT STOP TERM TSTP TTIN TTOU USR1 USR2 WINCH")

// values completes the values of a command's options.
func (s completer) values(v *verb, cmd *cobra.Command) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		known := optionValues[f.Name]
		if f.Name == "filter" {
			known = filterKeys[v.paths[0]]
		}
		if f.Name == "format" && v.paths[0] != "image history" {
			known = []string{"json", "table"}
		}
		if len(known) == 0 {
			return
		}
		// It fails for an option that has a completion already: each has one.
		cmd.RegisterFlagCompletionFunc(f.Name, func(_ *cobra.Command, _ []string, said string) ([]string, cobra.ShellCompDirective) {
			return s.offer(known, said)
		})
	})
}

// offer lists the known values with the containers' names in place; after one that goes on, such as "label=", no blank follows.
func (s completer) offer(known []string, said string) ([]string, cobra.ShellCompDirective) {
	directive := cobra.ShellCompDirectiveNoFileComp
	var found []string
	for _, k := range known {
		before, isName := strings.CutSuffix(k, "NAME")
		if isName && (strings.HasPrefix(said, before) || before == "") {
			ctx, cancel := context.WithTimeout(context.Background(), completionTime)
			if api, err := s.quiet(); err == nil {
				for _, n := range containerNames(ctx, api, "") {
					found = append(found, before+n)
				}
			}
			cancel()
			continue
		}
		if strings.HasPrefix(before, said) {
			found = append(found, before)
			if strings.HasSuffix(before, "=") || isName {
				directive |= cobra.ShellCompDirectiveNoSpace
			}
		}
	}
	return found, directive
}
