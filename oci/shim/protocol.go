package shim

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"time"

	"berth/fault"
	"berth/kernel"
	"berth/oci"
)

// The protocol between the engine (E) and a shim (S): messages on a unix stream socket.
//
// A spare is born with one end of a socketpair, which becomes the first
// connection; every other one comes through shim.sock and is greeted:
//
//	E ──── start{request} + files ───▶ S   the spare is a spare no more
//	E ◀─── state | error ───────────── S   the program was executed | could not be; then S ends
//
//	E ──── connect ──────────────────▶ S   after a restart of the engine
//	E ◀─── state ───────────────────── S
//
//	E ──── op{…} + files ────────────▶ S   signal, resize, attach, exec, pids, pause, resume, state, clearlog
//	E ◀─── answer | error ──────────── S
//	E ──── wait, execwait ───────────▶ S
//	E ◀─── exit ────────────────────── S   once it is on disk, and the output is delivered
//	E ◀─── end of stream ───────────── S   S has ended: after the exit, or by its own death
//
// Answers carry the number of their request and may overtake each other. Either
// side may close at any time: the engine loses its answers, the shim loses nothing.
//
// A message is a header and a body of JSON; the files travel with the header's first byte (SCM_RIGHTS):
//
//	0    1         2        3   4…7
//	'b'  protocol  files    0   length of the body, big endian
//
// A shim outlives an upgrade of the engine, so an engine must speak the older
// protocols for as long as containers may run from that time. A field that both sides may lack needs no new protocol.
const protocol = 1

const (
	headerSize  = 8
	maxBody     = 64 << 20
	greeting    = 0 // the number of a message that answers no request
	firstPiece  = 64 << 10
	sendTimeout = 10 * time.Second // a peer that takes no message for so long is as good as dead
)

// The operations of a request.
const (
	opStart    = "start"
	opWait     = "wait"
	opSignal   = "signal"
	opResize   = "resize"
	opAttach   = "attach"
	opExec     = "exec"
	opExecWait = "execwait"
	opPids     = "pids"
	opPause    = "pause"
	opResume   = "resume"
	opState    = "state"
	opClearLog = "clearlog"
)

// call is a request. Files follow the order in which the fields name them:
// the network namespace, what to wait for, then one connection per attachment.
type call struct {
	Number uint64       `json:"n"`
	Op     string       `json:"op"`
	Start  *Request     `json:"start,omitempty"`
	NetNS  bool         `json:"netns,omitempty"` // the first file is Start.NetNS
	Ready  bool         `json:"ready,omitempty"` // the next one is Start.Ready
	Attach *Attachment  `json:"attach,omitempty"`
	Exec   *ExecRequest `json:"exec,omitempty"`
	ExecID string       `json:"execId,omitempty"` // signal, resize, execwait: not the container's first process but this one
	Signal int          `json:"signal,omitempty"`
	Size   *ConsoleSize `json:"size,omitempty"`

	files []*os.File
	body  []byte // as it came
}

// answer is the other direction.
type answer struct {
	Number uint64     `json:"n,omitempty"`
	Error  *wireError `json:"error,omitempty"`
	State  *State     `json:"state,omitempty"`
	Exit   *oci.Exit  `json:"exit,omitempty"`
	Pid    int        `json:"pid,omitempty"`
	Pids   []int      `json:"pids,omitempty"`
	Left   *string    `json:"left,omitempty"` // answers nothing: a client detached by its keys, from the exec of this ID or, with "", the container
}

// attachments lists what the call hands over, in the order of its files.
func (m *call) attachments() []*Attachment {
	var list []*Attachment
	all := func(of []Attachment) {
		for i := range of {
			list = append(list, &of[i])
		}
	}
	switch {
	case m.Start != nil:
		all(m.Start.Attach)
	case m.Exec != nil:
		all(m.Exec.Attach)
	case m.Attach != nil:
		list = append(list, m.Attach)
	}
	return list
}

// collect fills files from what the fields hold.
func (m *call) collect() {
	m.files = nil
	if m.NetNS = m.Start != nil && m.Start.NetNS != nil; m.NetNS {
		m.files = append(m.files, m.Start.NetNS)
	}
	if m.Ready = m.Start != nil && m.Start.Ready != nil; m.Ready {
		m.files = append(m.files, m.Start.Ready)
	}
	for _, a := range m.attachments() {
		m.files = append(m.files, a.Conn)
	}
}

// distribute gives the files to the fields. A call with another number of files than its fields need is refused.
func (m *call) distribute() error {
	list := m.attachments()
	need := len(list)
	if m.NetNS {
		need++
	}
	if m.Ready {
		need++
	}
	if need != len(m.files) || (m.NetNS || m.Ready) && m.Start == nil {
		return fault.New(fault.Invalid, "message: %d files came where %d are needed", len(m.files), need)
	}
	files := m.files
	if m.NetNS {
		m.Start.NetNS, files = files[0], files[1:]
	}
	if m.Ready {
		m.Start.Ready, files = files[0], files[1:]
	}
	for i, a := range list {
		a.Conn = files[i]
	}
	m.files = nil
	return nil
}

// wireError carries an error's text, its kind, and a StartError's code.
type wireError struct {
	Text string `json:"text"`
	Kind string `json:"kind,omitempty"`
	Code int    `json:"code,omitempty"`
}

func toWire(err error) *wireError {
	if err == nil {
		return nil
	}
	w := &wireError{Text: err.Error(), Kind: string(fault.Of(err))}
	var start *oci.StartError
	if errors.As(err, &start) {
		w.Code = start.Code
	}
	return w
}

func (w *wireError) error() error {
	if w == nil {
		return nil
	}
	err := errors.New(w.Text)
	if w.Kind != "" {
		err = fault.Wrap(fault.Kind(w.Kind), err)
	}
	if w.Code != 0 {
		err = &oci.StartError{Code: w.Code, Err: err}
	}
	return err
}

// sendCall writes a request and its files to the socket s; the files stay the caller's. It is not for use by several at once.
func sendCall(s *os.File, m *call) error {
	body, err := json.Marshal(m)
	if err != nil {
		return fault.New(fault.Invalid, "send to supervisor: %w", err)
	}
	return send(s, body, m.files)
}

// sendAnswer writes the other direction.
func sendAnswer(s *os.File, a *answer) error { return send(s, encode(a), nil) }

func send(s *os.File, body []byte, files []*os.File) error {
	if len(body) > maxBody || len(files) > kernel.MaxFiles {
		return fault.New(fault.Invalid, "send to supervisor: a request of %d bytes and %d files is too large", len(body), len(files))
	}
	frame := make([]byte, headerSize, headerSize+len(body))
	frame[0], frame[1], frame[2] = 'b', protocol, byte(len(files))
	binary.BigEndian.PutUint32(frame[4:], uint32(len(body)))
	frame = append(frame, body...)
	if err := s.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	return kernel.SendFiles(s, frame, files)
}

// receiveCall reads one request from the socket s. The files of one that is refused are closed. io.EOF is
// the end between two messages.
func receiveCall(s *os.File) (*call, error) {
	body, files, err := receive(s)
	if err != nil {
		return nil, err
	}
	m := new(call)
	if err = decode(body, m); err == nil {
		m.files, m.body = files, body
		err = m.distribute()
	}
	if err != nil {
		kernel.CloseAll(files)
		return nil, err
	}
	return m, nil
}

// receiveAnswer reads one answer.
func receiveAnswer(s *os.File) (*answer, error) {
	body, files, err := receive(s)
	if err != nil {
		return nil, err
	}
	kernel.CloseAll(files) // answers have none
	a := new(answer)
	if err := json.Unmarshal(body, a); err != nil {
		return nil, fault.New(fault.Corrupt, "message: %w", err)
	}
	return a, nil
}

// receive reads one message of either kind.
func receive(s *os.File) (body []byte, files []*os.File, err error) {
	var header [headerSize]byte
	n, files, err := kernel.ReceiveFiles(s, header[:])
	defer func() {
		if err != nil {
			kernel.CloseAll(files)
		}
	}()
	if err != nil {
		return nil, nil, err
	}
	if _, err = io.ReadFull(s, header[n:]); err != nil {
		return nil, nil, cut(err)
	}
	length, count, err := parseHeader(header)
	if err != nil {
		return nil, nil, err
	}
	if count != len(files) {
		return nil, nil, fault.New(fault.Corrupt, "message: %d files came, %d were announced", len(files), count)
	}
	if body, err = readBody(s, length); err != nil {
		return nil, nil, cut(err)
	}
	return body, files, nil
}

// cut names the end of the stream in the middle of a message.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func parseHeader(h [headerSize]byte) (length, files int, err error) {
	if h[0] != 'b' || h[3] != 0 {
		return 0, 0, fault.New(fault.Corrupt, "message: no header of ours: % x", h)
	}
	if h[1] != protocol {
		return 0, 0, fault.New(fault.Unsupported, "message: protocol %d, this program speaks %d", h[1], protocol)
	}
	size := binary.BigEndian.Uint32(h[4:])
	if size > maxBody {
		return 0, 0, fault.New(fault.Corrupt, "message: length %d", size)
	}
	return int(size), int(h[2]), nil
}

// readBody reads length bytes without trusting length further than bytes come.
func readBody(r io.Reader, length int) ([]byte, error) {
	body := make([]byte, min(length, firstPiece))
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, err
	}
	for len(body) < length {
		old := len(body)
		body = append(body, make([]byte, min(length-old, old))...)
		if _, err := io.ReadFull(r, body[old:]); err != nil {
			return nil, err
		}
	}
	return body, nil
}
