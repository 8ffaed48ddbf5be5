package client

import (
	"context"
	"encoding/json"
	"io"
	"net/url"
	"strconv"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// LayerReport is what an image's layers weigh, in bytes (see the engine's GET /images/{name}/layers).
type LayerReport struct {
	ID         string `json:"Id"`
	Platform   ocispec.Platform
	Size       int64 // as distributed
	Unpacked   int64
	Shown      FileSum // what a container sees
	Hidden     int64   // what later layers change or remove
	Efficiency float64
	Layers     []Layer // the deepest first
	Largest    []PathWeight
	Wasteful   []PathWeight
}

// FileSum counts files and their bytes.
type FileSum struct {
	Files int64
	Bytes int64
}

// Layer is one layer of an image.
type Layer struct {
	Digest    string
	DiffID    string
	Chain     string
	MediaType string
	Size      int64 // as distributed
	Unpacked  int64
	CreatedBy string
	Comment   string     `json:",omitempty"`
	Created   *time.Time `json:",omitempty"`
	Added     FileSum
	Changed   FileSum
	Removed   FileSum
	Hidden    int64
}

// PathWeight is a path and its bytes.
type PathWeight struct {
	Path  string
	Bytes int64
	Layer int
	Times int `json:",omitempty"`
}

// LayerFile is a path that a layer has, changes or removes.
type LayerFile struct {
	Path     string
	Change   string `json:",omitempty"` // A, C, D, or "" for what is as it was
	Layer    int
	Mode     uint32 // as st_mode in inode(7)
	UID      uint32
	GID      uint32
	Size     int64     `json:",omitempty"`
	Was      int64     `json:",omitempty"`
	Modified time.Time `json:",omitzero"`
	Link     string    `json:",omitempty"`
}

// ImageDiff is how two images differ.
type ImageDiff struct {
	From    string // ID
	To      string // ID
	Config  []SettingDiff
	Files   []FileDiff
	Added   FileSum
	Removed FileSum
	Changed FileSum
}

// SettingDiff is a setting of the images' configs; nil: the image does not have it.
type SettingDiff struct {
	Field string
	Name  string `json:",omitempty"`
	From  *string
	To    *string
}

// FileDiff is a path that the images do not have in common.
type FileDiff struct {
	Path   string
	Change string
	What   []string   `json:",omitempty"`
	From   *FileShape `json:",omitempty"`
	To     *FileShape `json:",omitempty"`
}

// FileShape is what a path is in one image.
type FileShape struct {
	Mode uint32
	UID  uint32
	GID  uint32
	Size int64  `json:",omitempty"`
	Link string `json:",omitempty"`
}

// Layers weighs an image's layers, as the daemon's own JSON; top is how many of the largest paths are named. platform is JSON of an OCI platform, or "".
func (s Images) Layers(ctx context.Context, ref, platform string, top int) (json.RawMessage, error) {
	q := url.Values{"top": {strconv.Itoa(top)}}
	set(q, "platform", platform)
	var out json.RawMessage
	err := s.get(ctx, path("images", ref, "layers"), q, &out)
	return out, err
}

// LayerFiles tells of the files of a layer, or with merged of all that is there with that layer on top; with layer -1 of all that a container sees.
func (s Images) LayerFiles(ctx context.Context, ref, platform string, layer int, merged bool, tell func(LayerFile) error) error {
	q := url.Values{}
	if layer != -1 {
		q.Set("layer", strconv.Itoa(layer))
	}
	set(q, "platform", platform)
	setBool(q, "merged", merged)
	r, err := s.c.Do(ctx, Request{Method: "GET", Path: path("images", ref, "files"), Query: q})
	if err != nil {
		return err
	}
	defer r.Close()
	for d := json.NewDecoder(r); ; {
		var f LayerFile
		if err := d.Decode(&f); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := tell(f); err != nil {
			return err
		}
	}
}

// Diff compares two images, as the daemon's own JSON.
func (s Images) Diff(ctx context.Context, from, to, platform string) (json.RawMessage, error) {
	q := url.Values{"to": {to}}
	set(q, "platform", platform)
	var out json.RawMessage
	err := s.get(ctx, path("images", from, "diff"), q, &out)
	return out, err
}
