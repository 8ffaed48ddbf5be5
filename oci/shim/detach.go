package shim

// detector finds the detach keys in a client's input. Bytes that may be the
// beginning of the sequence are held back until the next ones tell.
type detector struct {
	keys    []byte
	matched int   // how many of the keys the input ends with
	back    []int // back[i]: the longest proper prefix of keys that ends keys[:i+1] (Knuth, Morris, Pratt)
}

func newDetector(keys []byte) *detector {
	d := &detector{keys: keys, back: make([]int, len(keys))}
	for i, n := 1, 0; i < len(keys); i++ {
		for n > 0 && keys[i] != keys[n] {
			n = d.back[n-1]
		}
		if keys[i] == keys[n] {
			n++
		}
		d.back[i] = n
	}
	return d
}

// feed appends to out what of the input is to be passed on, and tells whether the keys
// came; what follows them is dropped.
func (d *detector) feed(out, in []byte) (pass []byte, detached bool) {
	if len(d.keys) == 0 {
		return append(out, in...), false
	}
	for _, b := range in {
		before := d.matched
		for d.matched > 0 && b != d.keys[d.matched] {
			d.matched = d.back[d.matched-1]
		}
		out = append(out, d.keys[:before-d.matched]...)
		switch {
		case b != d.keys[d.matched]:
			out = append(out, b)
		case d.matched+1 == len(d.keys):
			d.matched = 0
			return out, true
		default:
			d.matched++
		}
	}
	return out, false
}

// held returns what is held back; it is due when the input ends.
func (d *detector) held() []byte { return d.keys[:d.matched] }
