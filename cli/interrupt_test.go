package cli

import (
	"net/http"
	"strings"
	"testing"
)

// TestPullIsGivenUp types ctrl-c into a pull: the request ends, which ends the work, and the user hears what is left of it.
func TestPullIsGivenUp(t *testing.T) {
	for _, args := range [][]string{{"pull", "debian"}, {"run", "--pull", "always", "debian"}} {
		f := newFake(t)
		ended := make(chan bool)
		f.on("POST /images/create", func(w http.ResponseWriter, r *http.Request) {
			w.Write([]byte(`{"status":"Downloading","progressDetail":{"current":1,"total":10},"id":"aaaaaaaaaaaa"}` + "\n"))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			close(ended)
		})
		cmd, screen, _ := onTerminal(t, f, args...)
		expect(t, screen, "Downloading")
		screen.WriteString("\x03")
		if said := expect(t, screen, "goes on from there."); !strings.Contains(said, "The pull was interrupted.") {
			t.Errorf("%v: the screen shows %q", args, said)
		}
		<-ended
		if cmd.Wait(); cmd.ProcessState.ExitCode() != 130 {
			t.Errorf("%v: exit code %d", args, cmd.ProcessState.ExitCode())
		}
	}
}

// TestArchivesAreNoTextForTerminals types save and load where neither has anything to read or write.
func TestArchivesAreNoTextForTerminals(t *testing.T) {
	f := imageAnswers(t)
	for words, args := range map[string][]string{
		"cowardly refusing to save to a terminal. Use the -o flag or redirect": {"save", "debian"},
		"requested load from stdin, but stdin is empty":                        {"load"},
	} {
		cmd, screen, _ := onTerminal(t, f, args...)
		expect(t, screen, words)
		if cmd.Wait(); cmd.ProcessState.ExitCode() != 1 {
			t.Errorf("%v: exit code %d", args, cmd.ProcessState.ExitCode())
		}
	}
}
