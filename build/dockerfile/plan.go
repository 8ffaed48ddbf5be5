// Package dockerfile turns the text of a Dockerfile into a plan: which stages are needed, and what each step does.
//
// It is no builder: it runs nothing, reads no file and fetches nothing; what it has to know of base images, a Resolver tells. Invariant: a
// plan is plain data, complete, and the same for the same text, arguments and images.
package dockerfile

import (
	"context"
	"os"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Plan is what a Dockerfile asks for.
type Plan struct {
	Stages []*Stage // those that are needed, each after all that it needs
	Target *Stage   // the last of Stages
	Epoch  *time.Time
}

// Stage is a tree of files in the making, with the image that it becomes.
type Stage struct {
	Name  string // as in FROM … AS name, or stage-N; "" when there is but one
	Index int    // its place in the Dockerfile; -1: an image that is only copied or mounted from
	Line  int    // of its FROM; 0 when it has none
	Text  string // the FROM as written
	Base  Base
	Steps []*Step

	Platform ocispec.Platform
	Image    dockerspec.DockerOCIImage // its settings and history when all steps are done; the history has no times but the base's

	NoCache bool // its steps are run whatever the cache has
}

// Base is what a stage begins with; without any field set it is an empty tree.
type Base struct {
	Stage *Stage
	Image *Image
	Files *Tree
}

// Tree is files that are no image, a named build context.
type Tree struct {
	Name string  // what the client calls it
	From *Source // where else it is, at an address; nil: the client has it
}

// Image is a base image as a Resolver found it.
type Image struct {
	Name   string // as written
	Digest digest.Digest
	Config dockerspec.DockerOCIImage
	Handle any // the Resolver's own

	Unknown bool // it is not here: Config says nothing of it
}

// Resolver tells about what is outside of the Dockerfile.
type Resolver interface {
	// Image finds an image. An error is shown with the line that names it.
	Image(ctx context.Context, name string, platform ocispec.Platform) (*Image, error)
}

// Step is one instruction. Those that only change the image's settings have no Do.
type Step struct {
	Number  int    // of those in the stage that do something, from 1
	Text    string // as it is shown, variables replaced
	Line    int    // the first and the last line of it in the Dockerfile
	End     int
	OnBuild bool // it came with the base image

	Do      Doing
	History int // index in the image's history
}

// Doing is a *Run, a *Copy or a *Mkdir.
type Doing interface{ doing() }

// Run runs a program in the stage's tree.
type Run struct {
	Args     []string
	Env      []string // all that it sees
	FromArgs []string // names of those in Env that come of ARG
	Dir      string
	User     string
	Shell    bool // Args are a shell's and its script
	Script   *Inline
	Mounts   []Mount
	Network  string // default, none or host
	Security string // sandbox or insecure
	Proxies  []string
}

// Inline is a file that the Dockerfile itself has.
type Inline struct {
	Name string
	Data string
}

// Copy brings files into the stage's tree.
type Copy struct {
	From    *Stage // nil: the build context
	Sources []Source
	Dest    string // absolute; a "/" at the end when a directory is meant
	Add     bool
	Link    bool
	Parents bool

	Chown   string // user[:group]; "" leaves 0:0
	Mode    string // of --chmod: octal or symbolic; "" keeps
	Exclude []string
}

// Source is one thing to copy; one of the fields is set.
type Source struct {
	Path   string // a pattern below the top of where it is copied from
	URL    string
	Git    *Git
	Inline *Inline

	Unpack   bool   // an archive's content instead of itself
	Checksum string // what must come from a URL
	As       string // what a file from a URL is called; "": the address says
}

// Mkdir makes a directory and those above it.
type Mkdir struct {
	Path string
	User string // who gets those that are made
}

// Mount is something that a Run sees and that does not become part of the tree.
type Mount struct {
	Type     string // bind, cache, tmpfs, secret or ssh
	From     *Stage // where bind and cache take what they begin with; nil: the build context for bind, nothing for cache
	Source   string // below the top of that
	Target   string // absolute; "" of a secret that is only in the environment
	ReadOnly bool
	Size     int64 // of tmpfs, in bytes; 0: no bound
	ID       string
	Sharing  string // of cache: shared, private or locked
	Required bool
	Env      string // the variable that a secret is put in
	Mode     *os.FileMode
	UID, GID *uint32
}

func (*Run) doing()   {}
func (*Copy) doing()  {}
func (*Mkdir) doing() {}

// Shape is what a mount is, without what lies in it and where that comes from.
func (m Mount) Shape() Mount {
	m.From = nil
	return m
}
