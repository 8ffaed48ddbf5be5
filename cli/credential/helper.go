package credential

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"berth/fault"

	"github.com/moby/moby/api/types/registry"
)

// Words of the helpers' protocol, which they print where they fail.
const (
	notFound    = "credentials not found in native keychain"
	noServerURL = "no credentials server URL"
	noUsername  = "no credentials username"
)

// secret is what travels between this program and a helper.
type secret struct {
	ServerURL string
	Username  string
	Secret    string
}

// call runs a helper with input on its standard input and gives what it printed.
func call(ctx context.Context, helper, action string, input []byte) ([]byte, error) {
	program := "docker-credential-" + helper
	if strings.ContainsAny(helper, "/\x00") {
		return nil, fault.New(fault.Invalid, "credential helper %q: it is the end of a program's name, docker-credential-NAME in PATH", helper)
	}
	cmd := exec.CommandContext(ctx, program, action)
	cmd.Stdin = bytes.NewReader(input)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	said := strings.TrimSpace(string(out))
	switch {
	case err == nil:
		return out, nil
	case errors.Is(err, exec.ErrNotFound):
		return nil, fault.New(fault.NotFound, "credential helper %s is not in PATH: install it, or take it out of credsStore and credHelpers in config.json", program)
	case said == notFound:
		return nil, fault.New(fault.NotFound, "%s", said)
	case said == noServerURL || said == noUsername:
		return nil, fault.New(fault.Invalid, "credential helper %s: %s", program, said)
	}
	if said == "" {
		said = strings.TrimSpace(complaint.String())
	}
	if action == "get" && strings.HasPrefix(said, "{") {
		said = "" // half an answer, which may hold a secret
	}
	return nil, fmt.Errorf("credential helper %s %s: %w: %s", program, action, err, said)
}

// usualHelper is the helper of those who named none: pass's if there is pass, else the desktop's, if it is installed; "" is none.
func usualHelper() string {
	helper := "secretservice"
	if _, err := exec.LookPath("pass"); err == nil {
		helper = "pass"
	}
	if _, err := exec.LookPath("docker-credential-" + helper); err != nil {
		return ""
	}
	return helper
}

func helperGet(ctx context.Context, helper, server string) (registry.AuthConfig, error) {
	out, err := call(ctx, helper, "get", []byte(server))
	if err != nil && err.Error() == notFound {
		return registry.AuthConfig{}, nil
	}
	if err != nil {
		return registry.AuthConfig{}, err
	}
	var s secret
	if json.Unmarshal(out, &s) != nil {
		return registry.AuthConfig{}, fault.New(fault.Invalid, "credential helper docker-credential-%s: its answer is not the JSON that the protocol asks for", helper)
	}
	if s.Username == tokenUser {
		return registry.AuthConfig{ServerAddress: server, IdentityToken: s.Secret}, nil
	}
	return registry.AuthConfig{ServerAddress: server, Username: s.Username, Password: s.Secret}, nil
}

func helperStore(ctx context.Context, helper string, a registry.AuthConfig) error {
	s := secret{a.ServerAddress, a.Username, a.Password}
	if a.IdentityToken != "" {
		s.Username, s.Secret = tokenUser, a.IdentityToken
	}
	input, err := json.Marshal(s)
	if err != nil {
		return err
	}
	_, err = call(ctx, helper, "store", input)
	return err
}

func helperErase(ctx context.Context, helper, server string) error {
	_, err := call(ctx, helper, "erase", []byte(server))
	if err != nil && err.Error() == notFound {
		return nil
	}
	return err
}
