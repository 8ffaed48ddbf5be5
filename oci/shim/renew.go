package shim

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"berth/kernel"
	"berth/oci"
)

// source is where the bundle is found again when an exec needs it.
type source struct {
	body []byte   // the request that brought it, as it came, or
	file *os.File // the same, in a file in memory
}

// bundle reads the bundle anew, as it is rarely needed and large.
func (sup *supervisor) bundle() (*oci.Bundle, error) {
	body := sup.source.body
	if body == nil {
		var err error
		if body, err = readAll(sup.source.file); err != nil {
			return nil, err
		}
	}
	var m struct {
		Start struct {
			Bundle oci.Bundle `json:"bundle"`
		} `json:"start"`
	}
	if err := decode(body, &m); err != nil {
		return nil, err
	}
	if m.Start.Bundle.Foreign != nil {
		m.Start.Bundle.Dir = sup.dir
	}
	return &m.Start.Bundle, nil
}

// readAll reads a file in memory, whose size is known, in one piece.
func readAll(f *os.File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	data := make([]byte, info.Size())
	_, err = f.ReadAt(data, 0)
	return data, err
}

// heir is what a supervisor leaves to itself. Files are given by number, 0 is none.
type heir struct {
	State   State        `json:"state"`
	Source  int          `json:"source"`
	Lock    int          `json:"lock"`
	Listen  int          `json:"listen"`
	Group   string       `json:"group,omitempty"`
	PidFD   int          `json:"pidfd"`
	Root    int          `json:"root,omitempty"`
	Once    bool         `json:"once,omitempty"`
	Master  int          `json:"master,omitempty"`
	Stdin   int          `json:"stdin,omitempty"` // may be the master
	Streams []heirStream `json:"streams"`
	Log     *heirLog     `json:"log,omitempty"`
	Peers   []heirPeer   `json:"peers,omitempty"`
	Exits   []heirExit   `json:"exits,omitempty"`
}

type heirStream struct {
	Number  int       `json:"number"`
	File    int       `json:"file"` // may be the master
	Peer    int       `json:"peer,omitempty"`
	Pending []byte    `json:"pending,omitempty"`
	Since   time.Time `json:"since"`
}

type heirLog struct {
	Log    Log    `json:"log"`
	File   int    `json:"file"`
	Size   int64  `json:"size"`
	Lost   uint64 `json:"lost"`
	Offset int64  `json:"offset,omitempty"`
}

type heirPeer struct {
	File    int      `json:"file"`
	Waiting []uint64 `json:"waiting,omitempty"`
}

type heirExit struct {
	ID   string   `json:"id"`
	Exit oci.Exit `json:"exit"`
}

// renew executes this program again in its own place, which keeps the process, its children and its open
// files, and drops everything else: what a start and the execs took from the system comes back. The engine
// notices nothing: its connections stay, with what it wrote meanwhile. It is done
// only when nothing is going on; when it can't be done now renew returns.
func (sup *supervisor) renew() {
	if sup.settled || !sup.gate.TryLock() {
		return
	}
	defer sup.gate.Unlock()
	sup.mu.Lock()
	defer sup.mu.Unlock()
	w := will{}
	h, ok := w.write(sup)
	if !ok {
		return
	}
	body := encode(h)
	note, err := kernel.Memory("heir", body)
	if err != nil {
		return
	}
	defer note.Close()
	argv := []string{"berth-oci", "shim", filepath.Dir(sup.dir), strconv.Itoa(w.leave(note))}
	err = kernel.ExecKeeping("/proc/self/exe", argv, environment(procsToWait), w.files)
	sup.complain(err)
}

// will collects the files that are left.
type will struct{ files []*os.File }

// leave gives the number under which the heir finds f.
func (w *will) leave(f *os.File) int {
	if f == nil {
		return 0
	}
	if !slices.Contains(w.files, f) {
		w.files = append(w.files, f)
	}
	return kernel.FD(f)
}

// write describes sup, whose locks are held, if it is idle.
func (w *will) write(sup *supervisor) (*heir, bool) {
	io := sup.stdio
	io.mu.Lock()
	defer io.mu.Unlock()
	if sup.ending || io.served > 0 || io.over || io.log != nil && io.log.packing != nil {
		return nil, false
	}
	if sup.source.file == nil {
		f, err := kernel.Memory("request", sup.source.body)
		if err != nil {
			return nil, false
		}
		sup.source = source{file: f}
	}
	hold := sup.init.Hold()
	h := &heir{
		State: sup.state, Source: w.leave(sup.source.file), Lock: w.leave(sup.lock), Listen: w.leave(sup.listen),
		Group: hold.Group, PidFD: w.leave(hold.PidFD), Root: w.leave(hold.Root),
		Once: io.once, Master: w.leave(io.master), Stdin: w.leave(io.stdin),
	}
	h.State.Lives++
	for _, st := range io.streams {
		h.Streams = append(h.Streams, heirStream{int(st.number), w.leave(st.file), w.leave(st.peer), st.split.pending, st.split.since})
	}
	if l := io.log; l != nil {
		h.Log = &heirLog{l.Log, w.leave(l.file), l.size, l.lost, l.offset}
	}
	for _, p := range sup.peers {
		hp := heirPeer{File: w.leave(p.conn)}
		for _, waiter := range sup.waiters {
			if waiter.from == p {
				hp.Waiting = append(hp.Waiting, waiter.number)
			}
		}
		h.Peers = append(h.Peers, hp)
	}
	for _, e := range sup.execs {
		if e.exit == nil || e.stdio != nil {
			return nil, false
		}
	}
	for _, id := range sup.order {
		h.Exits = append(h.Exits, heirExit{id, *sup.execs[id].exit})
	}
	return h, true
}

// inheritance gives the files out, each once.
type inheritance struct {
	files map[int]*os.File
	err   error
}

func (in *inheritance) file(number int, name string) *os.File {
	if number == 0 || in.err != nil {
		return nil
	}
	if in.files[number] == nil {
		in.files[number], in.err = kernel.Inherit(number, name)
	}
	return in.files[number]
}

// resume goes on where renew left off.
func resume(dir, note string, b builder) error {
	settle()
	number, err := strconv.Atoi(note)
	if err != nil {
		return err
	}
	in := &inheritance{files: make(map[int]*os.File)}
	f := in.file(number, "heir")
	if in.err != nil {
		return in.err
	}
	body, err := readAll(f)
	f.Close()
	var h heir
	if err == nil {
		err = decode(body, &h)
	}
	if err != nil {
		return err
	}
	sup, err := in.supervisor(dir, &h, b)
	if err != nil {
		return err
	}
	sup.crashInto(crashFile)
	sup.stdio.begin()
	for _, p := range sup.peers {
		go sup.talk(p)
	}
	sup.run()
	return nil
}

// supervisor builds what will.write took apart.
func (in *inheritance) supervisor(dir string, h *heir, b builder) (*supervisor, error) {
	sup := newSupervisor(b, filepath.Join(dir, h.State.ID))
	sup.state = h.State
	sup.source.file = in.file(h.Source, "request")
	sup.lock, sup.listen = in.file(h.Lock, sup.dir), in.file(h.Listen, socketFile)
	s, _, err := sup.newStdio(true, false, false, nil) // without pipes
	if err != nil {
		return nil, err
	}
	s.once, s.master, s.stdin = h.Once, in.file(h.Master, "terminal"), in.file(h.Stdin, "stdin")
	for _, hs := range h.Streams {
		name := "stdout"
		if byte(hs.Number) == streamErr {
			name = "stderr"
		}
		st := &stream{number: byte(hs.Number), name: name, file: in.file(hs.File, name), peer: in.file(hs.Peer, "terminal")}
		st.split = splitter{pending: hs.Pending, since: hs.Since}
		s.streams = append(s.streams, st)
	}
	if l := h.Log; l != nil {
		s.log = &logger{Log: l.Log, file: in.file(l.File, l.Log.Path), size: l.Size, lost: l.Lost, offset: l.Offset}
		s.log.share(&s.mu, func() { sup.memory.used(wholeRound) })
	}
	sup.stdio = s
	for _, hp := range h.Peers {
		p := &peer{conn: in.file(hp.File, "engine")}
		sup.peers = append(sup.peers, p)
		for _, number := range hp.Waiting {
			sup.waiters = append(sup.waiters, pending{p, number})
		}
	}
	for _, e := range h.Exits {
		sup.execs[e.ID] = &execution{exit: &e.Exit}
		sup.order = append(sup.order, e.ID)
	}
	hold := oci.Hold{Pid: h.State.Pid, Group: h.Group, PidFD: in.file(h.PidFD, "pidfd"), Root: in.file(h.Root, "root")}
	if in.err != nil {
		return nil, in.err
	}
	sup.init = b.adopt(hold)
	s.process.Store(&sup.init)
	return sup, nil
}
