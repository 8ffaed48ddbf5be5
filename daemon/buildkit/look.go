package buildkit

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"strings"

	"berth/archive"
	"berth/fault"

	gateway "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	fstypes "github.com/tonistiigi/fsutil/types"
)

// lookCaps are what clients ask for that look into a context in another place before they have it built: buildx looks for a policy there.
var lookCaps = []string{"source.git.fullurl", "source.git.subdir", "source.git.skipsubmodules", "source.git.checksum", "source.git.mtime", "source.git.fetchbycommit",
	"source.git.knownsshhosts", "source.git.mountsshsock", "source.http.checksum", "meta.description", "file.base"}

// addressOf is the one address whose content a graph of the client's own is; "": it is something else.
func addressOf(def *pb.Definition) (address string) {
	for _, text := range def.Def {
		var op pb.Op
		if err := op.UnmarshalVT(text); err != nil {
			return ""
		}
		if file := op.GetFile(); file != nil {
			for _, a := range file.Actions {
				if a.GetCopy() == nil { // an archive is unpacked
					return ""
				}
			}
		}
		if op.GetExec() != nil || op.GetBuild() != nil || op.GetMerge() != nil || op.GetDiff() != nil {
			return ""
		}
		source := op.GetSource()
		if source == nil {
			continue
		}
		if address != "" {
			return ""
		}
		scheme, rest, _ := strings.Cut(source.Identifier, "://")
		switch scheme {
		case "http", "https":
			address = source.Identifier
		case "git":
			_, fragment, has := strings.Cut(rest, "#")
			if address = source.Attrs["git.fullurl"]; address == "" {
				address = source.Identifier
			} else if has {
				address += "#" + fragment
			}
		default:
			return ""
		}
	}
	return address
}

// look promises the content of an address. It is fetched when a file of it is asked for.
func (j *job) look(address string) *gateway.SolveResponse {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.looks == nil {
		j.looks = map[string]string{}
	}
	ref := rand.Text()
	j.looks[ref] = address
	return &gateway.SolveResponse{Result: &gateway.Result{Result: &gateway.Result_Ref{Ref: &gateway.Ref{Id: ref}}}}
}

// into calls fn with what is at the address of ref.
func (b *bridge) into(ctx context.Context, ref string, fn func(top *os.File) error) error {
	j, err := b.job(ctx)
	if err != nil {
		return err
	}
	j.mu.Lock()
	address := j.looks[ref]
	j.mu.Unlock()
	if address == "" {
		return fault.New(fault.Unsupported, "files of a build's result are not shown: put it out with --output type=local")
	}
	if !j.begin() {
		return fault.New(fault.Canceled, "the build has ended meanwhile")
	}
	defer j.work.Done()
	_, client, t, err := b.prepare(ctx, j, map[string]string{})
	if err != nil {
		return err
	}
	top, end, err := b.Builds.Elsewhere(ctx, address, client, t)
	if err != nil {
		return err
	}
	return errors.Join(fn(top), end())
}

func noSuchFile(name string, err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fault.New(fault.NotFound, "%s: no such file or directory", name)
	}
	return err
}

// StatFile tells about a file.
func (b *bridge) StatFile(ctx context.Context, r *gateway.StatFileRequest) (*gateway.StatFileResponse, error) {
	res := &gateway.StatFileResponse{}
	return res, b.into(ctx, r.Ref, func(top *os.File) error {
		info, target, err := archive.Stat(top, r.Path)
		if err != nil {
			return noSuchFile(r.Path, err)
		}
		res.Stat = &fstypes.Stat{Path: info.Name(), Mode: uint32(info.Mode()), Size: info.Size(), ModTime: info.ModTime().UnixNano(), Linkname: target}
		return nil
	})
}

// ReadFile reads one.
func (b *bridge) ReadFile(ctx context.Context, r *gateway.ReadFileRequest) (*gateway.ReadFileResponse, error) {
	res := &gateway.ReadFileResponse{}
	return res, b.into(ctx, r.Ref, func(top *os.File) (err error) {
		if res.Data, err = archive.ReadFile(top, r.FilePath, maxMessage); err != nil {
			return noSuchFile(r.FilePath, err)
		}
		if n := int64(len(res.Data)); r.Range != nil {
			from := min(max(r.Range.Offset, 0), n)
			to := n
			if r.Range.Length > 0 {
				to = from + min(r.Range.Length, n-from)
			}
			res.Data = res.Data[from:to]
		}
		return nil
	})
}
