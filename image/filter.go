package image

// Filter selects images. Keys as in the API: dangling, label, label!, before, since, reference, until.
// Values of one key are alternatives, except label, where all must hold.
type Filter map[string][]string

// Select returns the images of list that f lets through, in their order. before and since take
// what lookup knows. fault.Invalid: an unknown key or bad value.
func Select(list []*Image, f Filter, lookup func(ref string) (*Image, error)) ([]*Image, error) {
	return nil, errUnfinished
}
