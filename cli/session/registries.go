package session

import (
	"context"

	"berth/cli/credential"

	"github.com/moby/moby/api/types/registry"
)

// Registries are a request's headers with all the user's credentials, as what must be fetched again may come from anywhere.
func (s *Session) Registries(ctx context.Context) map[string]string {
	store := s.Credentials()
	all := map[string]registry.AuthConfig{}
	for _, server := range store.Servers() {
		if a, err := store.Get(ctx, server); err == nil { // where there are none, nobody is asked for any
			all[credential.Host(server)] = a
		}
	}
	if len(all) == 0 {
		return nil
	}
	text, err := credential.Encode(all)
	if err != nil {
		return nil
	}
	return map[string]string{"X-Registry-Config": text}
}
