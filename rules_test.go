package berth_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mayImport says which of the project's own packages a package may import.
// Imports go down only: mains, talks, decides, nouns, bytes, kernel.
// A noun does not import a noun; engine introduces them to each other.
var mayImport = map[string][]string{
	"fault":             {},
	"console":           {},
	"kernel":            {"fault"},
	"internal/logtext":  {},
	"internal/record":   {"kernel", "fault"},
	"kernel/namespace":  {"kernel", "fault"},
	"kernel/cgroup":     {"kernel", "fault"},
	"kernel/seccomp":    {"kernel", "fault"},
	"kernel/netlink":    {"kernel", "fault"},
	"kernel/nft":        {"kernel", "kernel/netlink", "fault"},
	"kernel/btrfs":      {"kernel", "fault"},
	"kernel/quota":      {"kernel", "fault"},
	"kernel/dm":         {"kernel", "fault"},
	"kernel/block":      {"kernel", "fault"},
	"archive":           {"kernel", "internal/record", "fault"},
	"archive/compress":  {"archive/inflate", "fault"},
	"archive/inflate":   {},
	"blob":              {"kernel", "internal/record", "fault"},
	"union":             {"kernel", "kernel/quota", "archive", "internal/record", "fault", "union/clone", "union/vfs", "union/btrfs", "union/zfs", "union/thin"},
	"union/btrfs":       {"kernel", "kernel/btrfs", "fault"},
	"union/clone":       {"kernel", "fault"},
	"union/thin":        {"kernel", "kernel/dm", "kernel/block", "internal/record", "fault"},
	"union/vfs":         {"kernel", "fault", "union/clone"},
	"union/zfs":         {"kernel", "fault"},
	"container":         {"internal/logtext", "internal/record", "fault"},
	"container/forward": {"container", "internal/record", "fault"},
	"image":             {"image/hello", "image/instruction", "image/schema1", "blob", "union", "archive", "archive/compress", "internal/record", "fault"},
	"image/hello":       {},
	"image/instruction": {"fault"},
	"image/schema1":     {"fault"},
	"registry":          {"blob", "internal/record", "fault"},
	"network":           {"network/ipam", "network/firewall", "kernel", "kernel/namespace", "kernel/netlink", "kernel/nft", "internal/record", "fault"},
	"network/dns":       {"network/names", "kernel", "kernel/namespace", "kernel/nft", "fault"},
	"network/firewall":  {"kernel/nft"},
	"network/ipam":      {"fault"},
	"network/names":     {"kernel", "kernel/namespace", "fault"},
	"volume":            {"kernel/quota", "union/clone", "volume/hold", "kernel", "archive", "internal/record", "fault"},
	"volume/hold":       {"kernel", "kernel/namespace", "fault"},
	"volume/plugin":     {"fault"},
	"oci":               {"kernel", "kernel/namespace", "kernel/cgroup", "kernel/seccomp", "internal/record", "fault"},
	"oci/foreign":       {"oci", "kernel", "kernel/cgroup", "internal/record", "fault"},
	"oci/shim":          {"internal/logtext", "oci", "oci/foreign", "kernel", "kernel/cgroup", "internal/record", "fault"},
	"engine/view":       {"container", "network"},
	"engine/bundle":     {"container", "oci", "union", "fault"},
	"engine/link":       {"container", "network", "fault"},
	"engine/device":     {"engine/bundle", "container", "fault"},
	"engine/request":    {"container/forward", "engine/bundle", "container", "network", "oci", "fault", "engine/userns"},
	"engine/explain":    {"network", "oci", "fault"},
	"engine/toolbox":    {"engine/bundle", "container", "image", "union", "fault", "oci"},
	"engine/machine":    {},
	"build":             {"build/dockerfile", "build/progress", "image", "union", "archive", "archive/compress", "internal/record", "fault"},
	"build/contexts":    {"build/transfer", "kernel", "archive", "fault", "internal/record"},
	"build/dockerfile":  {"build/progress", "image", "fault"},
	"build/output":      {"build", "image", "union", "archive", "archive/compress", "fault"},
	"build/progress":    {},
	"engine/builds":     {"build", "engine/disk", "build/output", "engine/machine", "build/dockerfile", "build/progress", "engine/images", "engine/request", "image", "archive", "archive/compress", "fault", "build/contexts", "build/protocol", "engine/volumes", "volume", "internal/record", "build/transfer", "build/remote"},
	"build/remote":      {"build/dockerfile", "kernel", "internal/record", "fault"},
	"build/protocol":    {},
	"build/transfer":    {"kernel", "fault"},
	"engine/selection":  {"container", "engine/journal", "engine/networks", "engine/view", "image", "network", "fault"},
	"engine":            {"build", "build/remote", "engine/builds", "engine/selection", "engine/mounts", "engine/disk", "engine/link", "engine/view", "engine/images", "engine/machine", "engine/toolbox", "engine/device", "engine/journal", "engine/bundle", "engine/request", "container", "container/forward", "engine/stream", "image", "image/instruction", "registry", "network", "network/names", "volume", "oci", "oci/shim", "blob", "union", "archive", "archive/compress", "internal/record", "fault", "engine/userns", "engine/usage", "engine/files", "engine/recovery", "engine/depend", "engine/layers", "engine/networks", "engine/resolver", "engine/volumes", "engine/storage", "volume/hold"},
	"engine/files":      {"union", "archive", "archive/compress", "fault"},
	"engine/images":     {"engine/journal", "image", "registry", "fault"},
	"engine/journal":    {"fault"},
	"engine/mounts":     {"engine/bundle", "engine/volumes", "container", "image", "union", "volume", "fault"},
	"engine/disk":       {"build", "engine/images", "engine/journal", "engine/request", "image", "network", "registry", "container", "volume", "blob", "union", "internal/record", "fault"},
	"engine/layers":     {"image", "union", "fault"},
	"engine/networks":   {"engine/journal", "engine/request", "container", "network", "network/ipam", "fault"},
	"engine/resolver":   {"engine/bundle", "engine/networks", "engine/link", "engine/request", "container", "network", "network/names", "fault"},
	"engine/storage":    {"union", "fault"},
	"engine/stream":     {"container", "container/forward", "engine/request", "oci/shim", "fault"},
	"engine/userns":     {"container", "fault"},
	"engine/usage":      {"oci", "fault"},
	"engine/volumes":    {"archive/compress", "engine/journal", "container", "volume", "volume/hold", "volume/plugin", "internal/record", "fault"},
	"daemon/buildkit":   {"archive", "build", "build/contexts", "build/transfer", "build/dockerfile", "build/progress", "engine/builds", "engine/disk", "fault", "image"},
	"daemon":            {"daemon/buildkit", "build/dockerfile", "build/progress", "engine/builds", "engine/disk", "engine/explain", "engine", "engine/images", "engine/files", "engine/layers", "engine/networks", "engine/resolver", "engine/volumes", "console", "container", "image", "network", "volume", "fault", "build/protocol"},
	"client":            {"build/progress", "fault", "build/protocol"},
	"cli":               {"cli/build", "cli/container", "cli/flag", "cli/image", "cli/inspect", "cli/manifest", "cli/network", "cli/prune", "cli/registry", "cli/session", "cli/system", "cli/terminal", "cli/volume", "client", "fault"},
	"cli/build":         {"archive", "build/progress", "cli/flag", "cli/format", "cli/progress", "cli/session", "cli/terminal", "client", "fault", "build/protocol", "build/transfer"},
	"cli/container":     {"archive", "cli/config", "cli/create", "cli/flag", "cli/format", "cli/progress", "cli/reference", "cli/session", "cli/terminal", "client", "fault"},
	"cli/image":         {"cli/config", "cli/create", "cli/explore", "cli/flag", "cli/format", "cli/progress", "cli/reference", "cli/session", "cli/terminal", "client", "fault"},
	"cli/inspect":       {"cli/config", "cli/create", "cli/flag", "cli/format", "cli/progress", "cli/reference", "cli/session", "cli/terminal", "client", "fault"},
	"cli/registry":      {"cli/credential", "cli/flag", "cli/format", "cli/reference", "cli/session", "cli/terminal", "client", "fault"},
	"cli/network":       {"cli/flag", "cli/format", "cli/session", "client", "fault"},
	"cli/volume":        {"cli/flag", "cli/format", "cli/session", "cli/terminal", "client", "fault"},
	"cli/manifest":      {"cli/reference", "cli/session", "client", "fault"},
	"cli/prune":         {"cli/flag", "cli/format", "cli/session", "client", "fault"},
	"cli/system":        {"cli/container", "cli/credential", "cli/image", "cli/config", "cli/create", "cli/flag", "cli/format", "cli/progress", "cli/reference", "cli/session", "cli/terminal", "client", "fault"},
	"cli/session":       {"cli/config", "cli/credential", "cli/format", "cli/progress", "cli/reference", "cli/terminal", "client", "fault"},
	"cli/config":        {"fault"},
	"cli/credential":    {"cli/config", "fault"},
	"cli/explore":       {"cli/format", "cli/terminal", "client"},
	"cli/progress":      {"cli/format", "cli/terminal", "client"},
	"cli/reference":     {"fault"},
	"cli/terminal":      {},
	"cli/create":        {"cli/flag", "cli/format", "client", "fault"},
	"cli/flag":          {"cli/format"},
	"cli/format":        {"fault"},
	"engine/recovery":   {"container", "oci"},
	"engine/depend":     {"engine/journal", "container", "fault"},
}

// outside lists the folders that wire or test whatever they need.
var outside = []string{"cmd", "test", "internal/kerneltest", "registry/registrytest", "volume/plugin/plugintest", "."}

// callsKernel lists the packages that may make system calls.
func callsKernel(dir string) bool {
	return dir == "kernel" || strings.HasPrefix(dir, "kernel/") || dir == "internal/kerneltest"
}

// Limits on size. Raising one is a commit of its own that gives the reason.
const (
	maxFunctionLines    = 80
	maxFileLines        = 600
	maxPackageLines     = 6000
	maxMethods          = 40
	maxFields           = 30
	maxInterfaceMethods = 12
)

// source is one parsed Go package without its tests.
type source struct {
	dir   string
	set   *token.FileSet
	files map[string]*ast.File
}

func packages(t *testing.T) []source {
	t.Helper()
	byDir := map[string]source{}
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && p != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || p == "bin" || p == "run") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return nil
		}
		dir := filepath.ToSlash(filepath.Dir(p))
		s, ok := byDir[dir]
		if !ok {
			s = source{dir, token.NewFileSet(), map[string]*ast.File{}}
			byDir[dir] = s
		}
		f, err := parser.ParseFile(s.set, p, nil, parser.ParseComments)
		s.files[p] = f
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var all []source
	for _, s := range byDir {
		all = append(all, s)
	}
	return all
}

func isOutside(dir string) bool {
	return slices.ContainsFunc(outside, func(o string) bool { return dir == o || o != "." && strings.HasPrefix(dir, o+"/") })
}

func TestImportsGoDown(t *testing.T) {
	for _, s := range packages(t) {
		allowed, known := mayImport[s.dir]
		if !known && !isOutside(s.dir) {
			t.Errorf("%s: not in the table of packages; add it to mayImport and to the design", s.dir)
			continue
		}
		for name, f := range s.files {
			for _, i := range f.Imports {
				imported := strings.Trim(i.Path.Value, `"`)
				if own, ok := strings.CutPrefix(imported, "berth/"); ok && known && !slices.Contains(allowed, own) {
					t.Errorf("%s imports %s: %s may import only %v", name, imported, s.dir, allowed)
				}
				if i.Name != nil && i.Name.Name == "_" && path.Base(imported) != "embed" {
					t.Errorf("%s: blank import of %s", name, imported)
				}
				if imported == "golang.org/x/sys/unix" && !callsKernel(s.dir) && !isOutside(s.dir) {
					t.Errorf("%s imports %s: only kernel/... makes system calls", name, imported)
				}
			}
		}
	}
}

// TestSyscallGivesNamesOnly lets packages above kernel name signals, errnos and process attributes, and call nothing.
func TestSyscallGivesNamesOnly(t *testing.T) {
	for _, s := range packages(t) {
		if callsKernel(s.dir) || isOutside(s.dir) {
			continue
		}
		for _, f := range s.files {
			ast.Inspect(f, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				sel, ok := call.Fun.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				if pkg, ok := sel.X.(*ast.Ident); ok && pkg.Name == "syscall" && pkg.Obj == nil &&
					sel.Sel.Name != "Signal" && sel.Sel.Name != "Errno" {
					t.Errorf("%s: syscall.%s is called outside kernel/...", s.set.Position(call.Pos()), sel.Sel.Name)
				}
				return true
			})
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, s := range packages(t) {
		if !slices.ContainsFunc(slices.Collect(values(s.files)), func(f *ast.File) bool { return f.Doc.Text() != "" }) {
			t.Errorf("%s has no package comment", s.dir)
		}
	}
}

func values(m map[string]*ast.File) func(func(*ast.File) bool) {
	return func(yield func(*ast.File) bool) {
		for _, f := range m {
			if !yield(f) {
				return
			}
		}
	}
}

func TestExportedNamesAreDocumented(t *testing.T) {
	total, without := 0, []string{}
	for _, s := range packages(t) {
		for _, f := range s.files {
			for _, d := range f.Decls {
				name, doc := exported(d)
				if name == "" {
					continue
				}
				total++
				if doc == "" {
					without = append(without, s.dir+"."+name)
				}
			}
		}
	}
	if len(without)*20 > total {
		t.Errorf("%d of %d exported names have no comment (at most one in twenty may): %v", len(without), total, without)
	}
}

func exported(d ast.Decl) (name, doc string) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() {
			return d.Name.Name, d.Doc.Text()
		}
	case *ast.GenDecl:
		if spec, ok := d.Specs[0].(*ast.TypeSpec); ok && d.Tok == token.TYPE && spec.Name.IsExported() {
			return spec.Name.Name, d.Doc.Text() + spec.Doc.Text()
		}
	}
	return "", ""
}

func TestSizes(t *testing.T) {
	for _, s := range packages(t) {
		total := 0
		methods := map[string]int{}
		for name, f := range s.files {
			lines := s.set.Position(f.FileEnd).Line
			if generated := ast.IsGenerated(f); generated {
				continue
			}
			total += lines
			if lines > maxFileLines {
				t.Errorf("%s has %d lines, more than %d", name, lines, maxFileLines)
			}
			ast.Inspect(f, func(n ast.Node) bool { checkSize(t, s.set, n, methods); return true })
		}
		if total > maxPackageLines {
			t.Errorf("package %s has %d lines, more than %d", s.dir, total, maxPackageLines)
		}
		for receiver, n := range methods {
			if n > maxMethods {
				t.Errorf("%s.%s has %d methods, more than %d", s.dir, receiver, n, maxMethods)
			}
		}
	}
}

func checkSize(t *testing.T, set *token.FileSet, n ast.Node, methods map[string]int) {
	switch n := n.(type) {
	case *ast.FuncDecl:
		if n.Recv != nil {
			methods[receiver(n.Recv.List[0].Type)]++
		}
		if lines := set.Position(n.End()).Line - set.Position(n.Pos()).Line + 1; lines > maxFunctionLines {
			t.Errorf("%s: %s has %d lines, more than %d", set.Position(n.Pos()), n.Name.Name, lines, maxFunctionLines)
		}
	case *ast.StructType:
		if n.Fields.NumFields() > maxFields {
			t.Errorf("%s: a struct with %d fields, more than %d", set.Position(n.Pos()), n.Fields.NumFields(), maxFields)
		}
	case *ast.InterfaceType:
		if n.Methods.NumFields() > maxInterfaceMethods {
			t.Errorf("%s: an interface with %d methods, more than %d", set.Position(n.Pos()), n.Methods.NumFields(), maxInterfaceMethods)
		}
	}
}

func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return "?"
}

// TestDependenciesHaveReasons compares go.mod's direct requirements with doc/dependencies.md.
func TestDependenciesHaveReasons(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{if not (or .Main .Indirect)}}{{.Path}}{{end}}", "all").Output()
	if err != nil {
		t.Fatalf("go list -m all: %v", err)
	}
	page, err := os.ReadFile("doc/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	direct := strings.Fields(string(out))
	for _, module := range direct {
		if !strings.Contains(string(page), "`"+module+"`") {
			t.Errorf("%s has no reason in doc/dependencies.md", module)
		}
	}
	for _, line := range strings.Split(string(page), "\n") {
		if rest, ok := strings.CutPrefix(line, "| `"); ok {
			if module, _, _ := strings.Cut(rest, "`"); !slices.Contains(direct, module) {
				t.Errorf("doc/dependencies.md gives a reason for %s, which nothing requires", module)
			}
		}
	}
}

// TestTheDaemonLinksNoTemplates: text/template calls methods by names that only a run knows, so the linker keeps every exported method of every type of a
// program that has it. That is a fifth of the daemon's size, and of its memory when idle 2 MB. The tag is what the Makefile builds with: grpc's traces use templates.
func TestTheDaemonLinksNoTemplates(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-tags", "grpcnotrace", "./cmd/berthd").Output()
	if err != nil {
		t.Fatalf("go list -deps ./cmd/berthd: %v", err)
	}
	deps := strings.Fields(string(out))
	for _, not := range []string{"text/template", "html/template", "golang.org/x/net/trace"} {
		if slices.Contains(deps, not) {
			t.Errorf("berthd links %s: `go list -deps -tags grpcnotrace -f '{{.ImportPath}}: {{.Imports}}' ./cmd/berthd` tells whose import it is", not)
		}
	}
	makefile, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(makefile), "-tags=grpcnotrace") {
		t.Error("the Makefile builds without -tags=grpcnotrace")
	}
}
