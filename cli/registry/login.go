// Package registry has the commands about registries and the user's accounts with them.
//
// It asks no registry itself: the engine does. Invariant: a password that was typed or piped in is shown nowhere.
package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"berth/cli/credential"
	"berth/cli/session"
	"berth/cli/terminal"
	"berth/fault"

	"github.com/moby/moby/api/types/registry"
	"github.com/spf13/cobra"
)

type loginOptions struct {
	user, password string
	stdin          bool
}

// Login is the command "login".
func Login(s *session.Session) *cobra.Command {
	var o loginOptions
	cmd := &cobra.Command{
		Use: "login [OPTIONS] [SERVER]", Args: session.Between(0, 1),
		Example: "login\nlogin -u me registry.example.org\ncat password.txt | berth login -u me --password-stdin registry.example.org:5000",
		RunE: func(cmd *cobra.Command, args []string) error {
			fs := cmd.Flags()
			switch {
			case fs.Changed("password-stdin") && fs.Changed("password"):
				return errors.New("conflicting options: cannot specify both --password and --password-stdin")
			case fs.Changed("password-stdin") && !fs.Changed("username"):
				return errors.New("the --password-stdin option requires --username to be set")
			case fs.Changed("username") && o.user == "":
				return errors.New("username is empty")
			case fs.Changed("password") && o.password == "":
				return errors.New("password is empty")
			}
			server := credential.DefaultServer
			if len(args) == 1 {
				server = credential.Key(args[0])
			}
			return login(cmd.Context(), s, o, server)
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&o.password, "password", "p", "", "Password or Personal Access Token (PAT)")
	fs.BoolVar(&o.stdin, "password-stdin", false, "Take the Password or Personal Access Token (PAT) from stdin")
	fs.StringVarP(&o.user, "username", "u", "", "Username")
	return cmd
}

func login(ctx context.Context, s *session.Session, o loginOptions, server string) error {
	if o.password != "" {
		fmt.Fprintln(s.Err, "WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
	}
	if o.stdin {
		text, err := io.ReadAll(s.In)
		if err != nil {
			return fmt.Errorf("read the password: %w", err)
		}
		o.password = strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	}
	var known registry.AuthConfig
	if o.user == "" && o.password == "" {
		var err error
		if known, err = s.Credentials().Get(ctx, server); err != nil {
			s.Warn([]string{fmt.Sprintf("the credentials that are kept for %s are not used: %v", server, err)})
		}
	}
	if known.Username != "" && known.Password != "" {
		fmt.Fprintf(s.Err, "Authenticating with existing credentials... [Username: %s]\n\nTo login with a different account, run '%s logout' followed by '%s login'\n\n", known.Username, session.Name, session.Name)
		known.IdentityToken = ""
		err := enter(ctx, s, known)
		if err == nil {
			return nil
		}
		if errors.Is(err, fault.Unauthorized) {
			fmt.Fprintln(s.Err, "Stored credentials invalid or expired")
		} else {
			fmt.Fprintln(s.Err, "Login did not succeed, error:", err)
		}
	}
	a, err := askCredentials(s, o, known.Username, server)
	if err != nil {
		return err
	}
	return enter(ctx, s, a)
}

// enter tries credentials, and keeps them where they are right.
func enter(ctx context.Context, s *session.Session, a registry.AuthConfig) error {
	api, err := s.API()
	if err != nil {
		return err
	}
	answer, err := api.System.Login(ctx, a)
	if err != nil {
		return err
	}
	if answer.IdentityToken != "" {
		a.Password, a.IdentityToken = "", answer.IdentityToken
	}
	store := s.Credentials()
	plain, err := store.Put(ctx, a)
	if err != nil {
		return fmt.Errorf("error saving credentials: %w", err)
	}
	if plain {
		fmt.Fprintf(s.Err, "\nWARNING! Your credentials are stored unencrypted in '%s'.\nA program named in its credsStore or credHelpers would keep them safe.\n\n", store.File.Path)
	}
	if answer.Status != "" {
		fmt.Fprintln(s.Out, answer.Status)
	}
	return nil
}

// askCredentials asks for what the options don't say.
func askCredentials(s *session.Session, o loginOptions, before, server string) (registry.AuthConfig, error) {
	a := registry.AuthConfig{Username: strings.TrimSpace(o.user), Password: o.password, ServerAddress: server}
	if (a.Username == "" || a.Password == "") && !terminal.Is(s.In) {
		return a, &session.Exit{Code: 1, Message: "Error: Cannot perform an interactive login from a non TTY device"}
	}
	if a.Username == "" {
		question := "Username: "
		if before != "" {
			question = fmt.Sprintf("Username (%s): ", before)
		}
		name, err := s.Ask(question)
		if err != nil {
			return a, fmt.Errorf("read the name: %w", err)
		}
		if a.Username = name; name == "" {
			a.Username = before
		}
		if a.Username == "" {
			return a, &session.Exit{Code: 1, Message: "Error: Non-null Username Required"}
		}
	}
	if a.Password == "" {
		password, err := s.AskSecret("Password: ")
		if err != nil {
			return a, err
		}
		if a.Password = password; password == "" {
			return a, &session.Exit{Code: 1, Message: "Error: Password Required"}
		}
	}
	return a, nil
}
