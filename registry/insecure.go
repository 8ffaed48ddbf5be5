package registry

import "slices"

// Insecurely returns a client with the settings of c for which host, a name's, is among the insecure registries as
// well. It has connections and tokens of its own: close it.
func (c *Client) Insecurely(host string) (*Client, error) {
	h := c.current().Hosts
	if host == defaultDomain {
		host = defaultHost
	}
	h.Insecure = append(slices.Clone(h.Insecure), host)
	s, err := newSettings(h)
	if err != nil {
		return nil, err
	}
	return &Client{&shared{options: c.options, settings: s, lanes: map[laneKey]*lane{}}, c.waiting}, nil
}
