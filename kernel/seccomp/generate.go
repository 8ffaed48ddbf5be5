//go:build ignore

// Generate writes the system call tables, one text file per architecture, from the constants of golang.org/x/sys/unix
// that this module uses. Run it by "go generate" after an update of that module.
package main

import (
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// x32 calls have the numbers of amd64, marked by a bit, but for those whose arguments are laid out otherwise
// (the kernel's arch/x86/entry/syscalls/syscall_64.tbl: abi "x32"), and those that it does not have (abi "64").
var x32Numbers = strings.Fields(`rt_sigaction rt_sigreturn ioctl readv writev recvfrom sendmsg recvmsg execve ptrace
	rt_sigpending rt_sigtimedwait rt_sigqueueinfo sigaltstack timer_create mq_notify kexec_load waitid set_robust_list
	get_robust_list vmsplice move_pages preadv pwritev rt_tgsigqueueinfo recvmmsg sendmmsg process_vm_readv
	process_vm_writev setsockopt getsockopt io_setup io_submit execveat preadv2 pwritev2`)

var notX32 = strings.Fields(`uselib create_module get_kernel_syms query_module nfsservctl
	set_thread_area get_thread_area epoll_ctl_old epoll_wait_old vserver _sysctl uretprobe uprobe`)

const (
	x32Bit   = 0x40000000
	x32First = 512
)

// What x/sys lacks on arm: the private calls (arch/arm/include/uapi/asm/unistd.h) and a second name of 341.
var armMore = map[string]int{
	"breakpoint": 0xf0001, "cacheflush": 0xf0002, "usr26": 0xf0003, "usr32": 0xf0004, "set_tls": 0xf0005, "get_tls": 0xf0006,
	"sync_file_range2": 341,
}

func main() {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys").Output()
	if err != nil {
		log.Fatal(err)
	}
	dir := filepath.Join(strings.TrimSpace(string(out)), "unix")
	amd64 := read(dir, "amd64")
	write("amd64", amd64)
	write("x32", x32(amd64))
	write("x86", read(dir, "386"))
	write("arm64", read(dir, "arm64"))
	arm := read(dir, "arm")
	for name, n := range armMore {
		arm[name] = n
	}
	write("arm", arm)
}

func read(dir, arch string) map[string]int {
	text, err := os.ReadFile(filepath.Join(dir, "zsysnum_linux_"+arch+".go"))
	if err != nil {
		log.Fatal(err)
	}
	table := map[string]int{}
	for _, m := range regexp.MustCompile(`SYS_(\w+)\s*=\s*(\d+)`).FindAllStringSubmatch(string(text), -1) {
		n, err := strconv.Atoi(m[2])
		if err != nil {
			log.Fatal(err)
		}
		table[strings.ToLower(m[1])] = n
	}
	if len(table) < 200 {
		log.Fatalf("only %d calls found for %s", len(table), arch)
	}
	return table
}

func x32(amd64 map[string]int) map[string]int {
	table := map[string]int{}
	for name, n := range amd64 {
		if !slices.Contains(notX32, name) {
			table[name] = x32Bit + n
		}
	}
	for i, name := range x32Numbers {
		table[name] = x32Bit + x32First + i
	}
	return table
}

func write(arch string, table map[string]int) {
	var names []string
	for name := range table {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		if table[a] != table[b] {
			return table[a] - table[b]
		}
		return strings.Compare(a, b)
	})
	var b strings.Builder
	for _, name := range names {
		fmt.Fprintf(&b, "%s %d\n", name, table[name])
	}
	if err := os.WriteFile(arch+".txt", []byte(b.String()), 0o644); err != nil {
		log.Fatal(err)
	}
}
