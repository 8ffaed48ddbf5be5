package shim

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"berth/kernel"
	"berth/oci"
)

const (
	frameHeader = 8 // Docker's: stream, 3 zero bytes, length big endian
	chunkSize   = 32 << 10
	maxDrain    = 1 << 20 // the largest pipe there is without privileges (pipe(7)): no more can be left of the dead
)

// Stream numbers as in Docker's frames.
const (
	streamOut byte = 1
	streamErr byte = 2
)

type chunk [frameHeader + chunkSize]byte

// stdio is one process's standard streams, the supervisor's side: a copier per
// output stream reads, logs, and writes to every attached client, in that order.
type stdio struct {
	sup  *supervisor
	exec string // ID of the process, "" for the container's first
	once bool   // stdin closes when the first client that feeds it ends

	mu      sync.Mutex // for what follows; held while the log is written, never while a client is
	log     *logger    // nil: nothing is kept
	clients []*client  // replaced, never changed in place, so that copiers use it unlocked
	stdin   *os.File   // nil: closed, or never open
	over    bool       // all output was delivered: clients who come now get the log at most
	closed  bool       // no more clients

	served int // clients that are not gone altogether

	process atomic.Pointer[container] // to be ended when its client hangs up; nil while there is none
	feeding sync.Mutex                // one writer to stdin at a time
	streams []*stream
	master  *os.File // of the terminal, else nil
	given   []*os.File
	ended   atomic.Bool // the process was reaped: drain what is there and stop
	copiers sync.WaitGroup
	serving sync.WaitGroup // one per client
}

// stream is one direction of output.
type stream struct {
	number byte
	name   string // in the log
	file   *os.File
	peer   *os.File // the slave of the terminal, held so that its last close in the container doesn't end the output
	split  splitter
	line   func(line []byte, last bool, at time.Time) // logs a line
	left   int                                        // bytes that the drain may still read
}

// newStdio makes the pipes that a process is to be created with; a terminal comes later, with begin. end, or close when there is no process.
func (sup *supervisor) newStdio(terminal, openStdin, once bool, log *logger) (s *stdio, given oci.Stdio, err error) {
	s = &stdio{sup: sup, once: once && !terminal, log: log}
	if log != nil {
		log.share(&s.mu, func() { sup.memory.used(wholeRound) })
	}
	if terminal {
		return s, oci.Stdio{Console: true}, nil
	}
	pipe := func() (r, w *os.File) {
		if err != nil {
			return nil, nil
		}
		r, w, err = os.Pipe()
		return r, w
	}
	// Fd puts the process's end, and only that, into blocking mode, which is what programs expect.
	out, outGiven := pipe()
	errs, errGiven := pipe()
	given.Stdout, given.Stderr = outGiven, errGiven
	if openStdin {
		given.Stdin, s.stdin = pipe()
	}
	for _, f := range []*os.File{given.Stdin, outGiven, errGiven} {
		if f != nil {
			f.Fd()
			s.given = append(s.given, f)
		}
	}
	if out != nil {
		s.streams = append(s.streams, &stream{number: streamOut, name: "stdout", file: out})
	}
	if errs != nil {
		s.streams = append(s.streams, &stream{number: streamErr, name: "stderr", file: errs})
	}
	if err != nil {
		s.close()
		return nil, oci.Stdio{}, err
	}
	return s, given, nil
}

// terminal takes the master of the process's terminal over. Input goes there, if any is wanted.
func (s *stdio) terminal(master *os.File, openStdin bool, size ConsoleSize) error {
	if master == nil {
		return errors.New("no terminal came with the process")
	}
	master, err := kernel.Pollable(master)
	if err != nil {
		return err
	}
	s.master = master
	s.streams = append(s.streams, &stream{number: streamOut, name: "stdout", file: master})
	if openStdin {
		s.stdin = master
	}
	return s.resize(size)
}

func (s *stdio) resize(size ConsoleSize) error {
	if s.master == nil {
		return nil // clients ask without looking, and no engine has ever minded
	}
	if size == (ConsoleSize{}) {
		return nil
	}
	return kernel.SetSize(s.master, size.Height, size.Width)
}

// lostLines is how many lines the log had no room for.
func (s *stdio) lostLines() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.log == nil {
		return 0
	}
	return s.log.lost
}

// clearLog drops what is logged; an unfinished line stays.
func (s *stdio) clearLog() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.log == nil {
		return nil
	}
	return s.log.clear()
}

// begin starts copying, once the process exists.
func (s *stdio) begin() {
	kernel.CloseAll(s.given)
	s.given = nil
	for _, st := range s.streams {
		if s.master != nil && st.peer == nil {
			st.peer, _ = kernel.TerminalPeer(s.master) // without it the first end of file is final
		}
		st.left = maxDrain
		st.line = func(line []byte, last bool, at time.Time) { s.log.add(st.name, line, last, at) }
		s.copiers.Add(1)
		go s.copy(st)
	}
}

// copy is the copier of one stream. It ends with the stream, or when all is read that a reaped process left.
//
// What a dead process wrote is in the pipe or terminal already: when a read
// would block, all of it was read, whoever else holds the other end.
func (s *stdio) copy(st *stream) {
	defer s.copiers.Done()
	for {
		// Waiting comes first, and without a buffer: most of the time there is nothing.
		err := kernel.AwaitReadable(st.file)
		ended := s.ended.Load() // with it came a deadline in the past
		for err == nil || ended && errors.Is(err, os.ErrDeadlineExceeded) {
			err = s.pass(st, ended)
		}
		if err == kernel.ErrWouldBlock && !ended {
			continue
		}
		if ended || s.master == nil || !st.reopen() {
			break
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.log != nil {
		st.split.flush(time.Now(), st.line)
		s.log.flush()
	}
}

// pass reads what is there and delivers it.
func (s *stdio) pass(st *stream, ended bool) error {
	s.sup.gate.RLock()
	defer s.sup.gate.RUnlock()
	if ended && st.left <= 0 { // somebody else goes on writing
		return io.EOF
	}
	c := s.sup.chunks.Get().(*chunk)
	defer s.sup.chunks.Put(c)
	n, err := kernel.TryRead(st.file, c[frameHeader:])
	if err != nil {
		return err
	}
	if ended {
		st.left -= n
	}
	s.deliver(st, c[:frameHeader+n])
	return nil
}

// reopen gives a terminal that was hung up (its session leader ended, or the last slave was closed)
// a slave again, so that the container's next opener is heard.
func (st *stream) reopen() bool {
	peer, err := kernel.TerminalPeer(st.file)
	if err != nil {
		return false
	}
	if st.peer != nil {
		st.peer.Close()
	}
	st.peer = peer
	return true
}

// deliver logs a chunk of output and passes it on. The first bytes of frame are room for the header.
func (s *stdio) deliver(st *stream, frame []byte) {
	data := frame[frameHeader:]
	frame[0], frame[1], frame[2], frame[3] = st.number, 0, 0, 0
	binary.BigEndian.PutUint32(frame[4:], uint32(len(data)))
	s.mu.Lock()
	if s.log != nil {
		st.split.feed(data, time.Now(), st.line)
		s.log.flush()
		if len(data) < chunkSize { // no flood
			s.log.rest()
		}
	}
	clients := s.clients
	s.mu.Unlock()
	for _, c := range clients {
		c.write(st.number, frame)
	}
	s.sup.memory.used(len(data) / outputShare)
}

// feed writes a client's input to the process. It waits until the process takes it, and drops it when there is nobody to.
func (s *stdio) feed(data []byte) {
	s.feeding.Lock()
	defer s.feeding.Unlock()
	s.mu.Lock()
	f := s.stdin
	s.mu.Unlock()
	if f != nil && len(data) > 0 {
		if _, err := f.Write(data); err != nil {
			s.closeStdin()
		}
	}
}

// closeStdin lets the process read the end of its input. A feed that waits ends.
func (s *stdio) closeStdin() {
	s.mu.Lock()
	f := s.stdin
	s.stdin = nil
	s.mu.Unlock()
	if f != nil && f != s.master {
		f.Close()
	}
}

// end is called when the process was reaped. It returns when its output is logged and delivered, or after patience:
// a client that takes nothing holds its output up, but no longer the news of the end. The rest is finish's.
func (s *stdio) end(patience time.Duration) {
	s.ended.Store(true)
	for _, st := range s.streams {
		st.file.SetReadDeadline(time.Unix(1, 0))
	}
	s.closeStdin()
	if s.master != nil {
		s.master.SetWriteDeadline(time.Unix(1, 0))
	}
	done := make(chan struct{})
	go func() {
		s.copiers.Wait()
		s.hangUp()
		close(done)
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

// hangUp tells every client that there is no more.
func (s *stdio) hangUp() {
	s.mu.Lock()
	s.over = true
	clients := s.clients
	s.mu.Unlock()
	for _, c := range clients {
		c.finish()
	}
}

// finish waits until every client has all and is gone, and closes everything.
func (s *stdio) finish() {
	s.copiers.Wait()
	s.hangUp()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.serving.Wait()
	s.close()
}

// close frees the files. Nobody uses them any more.
func (s *stdio) close() {
	kernel.CloseAll(s.given)
	for _, st := range s.streams {
		kernel.CloseAll([]*os.File{st.file, st.peer})
	}
	s.closeStdin()
	if s.log != nil {
		s.log.close()
	}
}
