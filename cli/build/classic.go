package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"berth/cli/progress"
	"berth/cli/session"
	"berth/client"
	"berth/fault"

	"github.com/moby/moby/api/types/jsonstream"
)

// classic builds by sending all that there is. ours: the daemon is berth, which knows more than Docker's classic builder does.
func (o *options) classic(ctx context.Context, s *session.Session, api *client.Client, place string, ours bool) error {
	if err := o.refused(ours); err != nil {
		return err
	}
	if _, err := o.showing.open(s, o.quiet); err != nil { // what it shows is the daemon's to say
		return err
	}
	body, dockerfile, err := o.open(ctx, s, place)
	if err != nil {
		return err
	}
	defer body.Close()
	q, err := o.query(s, dockerfile)
	if err == nil {
		err = o.outputs.classic(q)
	}
	if err == nil && !ours {
		err = o.plainCaches(q)
	}
	if err != nil {
		return err
	}
	if isAddress(place) {
		q.Set("remote", place)
	}
	sent := &watched{Reader: body}
	p, err := api.Images.Build(ctx, q, s.Registries(ctx), sent)
	if wrong := sent.wrong.Load(); err != nil && wrong != nil {
		return fmt.Errorf("error checking context: %w: name it in .dockerignore when it is not needed", *wrong)
	}
	if err != nil {
		return err
	}
	id, err := o.follow(s, p)
	if err != nil || o.iidfile == "" {
		return err
	}
	if id == "" {
		return fmt.Errorf("the daemon gave no image ID: %s is not written", o.iidfile)
	}
	return os.WriteFile(o.iidfile, []byte(id), 0o644)
}

// refused says which of the options can't be had, before anything is sent: the classic builder would pass over them.
func (o *options) refused(ours bool) error {
	err := errors.Join(o.secrets.none(), o.contexts.none(), o.calling.none(), o.outputs.none())
	if err != nil || ours {
		return err
	}
	for _, one := range []struct {
		name string
		has  bool
	}{{"--allow", len(o.allowed.names) > 0}, {"--cache-to", len(o.caches.to) > 0}, {"--no-cache-filter", len(o.fresh) > 0}, {"--platform with several", len(o.platforms) > 1 || strings.Contains(strings.Join(o.platforms, ""), ",")}} {
		if one.has {
			return fault.New(fault.Unsupported, "%s: the engine that answers here has the classic builder alone, which has no such thing: build with berth's own daemon", one.name)
		}
	}
	return o.plainCaches(url.Values{})
}

// plainCaches makes names of images of the caches to take from: Docker's classic builder knows nothing else.
func (o *options) plainCaches(q url.Values) error {
	var names []string
	for _, text := range o.caches.from {
		attrs, err := cacheAttributes(text)
		if err != nil {
			return err
		}
		switch {
		case attrs["type"] == "" && !strings.Contains(text, "="):
			names = append(names, text)
		case attrs["type"] == "registry" && attrs["ref"] != "":
			names = append(names, attrs["ref"])
		default:
			return fault.New(fault.Unsupported, "--cache-from %s: the engine that answers here has the classic builder alone, which takes from images: name one, or build with berth's own daemon", text)
		}
	}
	if len(names) == 0 {
		return nil
	}
	text, err := json.Marshal(names)
	q.Set("cachefrom", string(text))
	return err
}

// follow shows what the daemon says until the build is over, and gives the image's ID.
func (o *options) follow(s *session.Session, p *client.Progress) (id string, err error) {
	var said bytes.Buffer // with -q: the ID, or what a program said that failed
	out := s.Out
	if o.quiet {
		out = &said
	} else if o.showing.mode == "quiet" || o.showing.mode == "none" {
		out = io.Discard
	}
	v := progress.New(out)
	v.Raw = true
	err = v.Show(p, func(m jsonstream.Message) {
		var aux struct{ ID string }
		if json.Unmarshal(*m.Aux, &aux) == nil && aux.ID != "" {
			id = aux.ID
		}
	})
	if o.quiet && err == nil {
		id = strings.TrimSpace(said.String())
		_, err = s.Out.Write(said.Bytes())
	} else if o.quiet {
		fmt.Fprint(s.Err, said.String())
	}
	if failed := (*jsonstream.Error)(nil); errors.As(err, &failed) && failed.Code > 0 && failed.Code < 256 {
		return "", &session.Exit{Code: failed.Code, Message: failed.Message} // that of the program that failed, as Docker has it
	}
	return id, err
}

// open gives the context as an archive and the Dockerfile's name in it.
func (o *options) open(ctx context.Context, s *session.Session, place string) (io.ReadCloser, string, error) {
	if place == "-" {
		return o.stdin(s)
	}
	if isAddress(place) {
		if o.file == "-" {
			return nil, "", fault.New(fault.Unsupported, "-f - with a context at an address: the classic builder takes the Dockerfile from there: unset DOCKER_BUILDKIT, or build with berth's own daemon")
		}
		return io.NopCloser(strings.NewReader("")), o.file, nil
	}
	if err := checkPlace(place); err != nil {
		return nil, "", err
	}
	c, err := openFiles(place, o.file, s.In)
	if err != nil {
		return nil, "", err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(c.write(ctx, w)) }()
	return r, c.dockerfile, nil
}

// stdin takes an archive, or a Dockerfile without a context.
func (o *options) stdin(s *session.Session) (io.ReadCloser, string, error) {
	if err := checkStdin(o.file); err != nil {
		return nil, "", err
	}
	text, rest, err := firstBytes(s.In)
	if err != nil {
		return nil, "", err
	}
	if isArchive(text) {
		name := o.file
		if name == "" {
			name = "Dockerfile"
		}
		return io.NopCloser(io.MultiReader(strings.NewReader(string(text)), rest)), name, nil
	}
	more, err := io.ReadAll(rest)
	if err != nil {
		return nil, "", err
	}
	if o.file != "" {
		return nil, "", errAmbiguous
	}
	return archiveOf("Dockerfile", append(text, more...)), "Dockerfile", nil
}
