package nft

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Conn is a connection to the packet filter of one network namespace. Its
// methods may be called from any goroutine; they run one after the other.
type Conn struct {
	mu sync.Mutex
	nl *nftables.Conn // nil after a failure: answers may be left in the socket then
	id uint32
}

// Open connects to the namespace of the calling thread; every later call comes from threads of the same one. The caller closes it.
func Open() (*Conn, error) {
	c := &Conn{}
	return c, c.dial()
}

func (c *Conn) dial() (err error) {
	if c.nl != nil {
		return nil
	}
	// A whole table is one packet, its acknowledgements one queue.
	const room = 32 << 20
	large := func(s *netlink.Conn) error { return errors.Join(s.SetWriteBuffer(room), s.SetReadBuffer(room)) }
	if c.nl, err = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(large)); err != nil {
		return fmt.Errorf("connect to nftables: %w", err)
	}
	return nil
}

// Close closes the connection. What it wrote stays.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.nl == nil {
		return nil
	}
	err := c.nl.CloseLasting()
	c.nl = nil
	return err
}

// transaction sends what fill queues, all or nothing.
func (c *Conn) transaction(what string, fill func(*nftables.Conn) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.dial(); err != nil {
		return err
	}
	err := fill(c.nl)
	if err == nil {
		err = c.nl.Flush()
	}
	if err != nil {
		c.nl.CloseLasting()
		c.nl = nil
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// chunk is how many elements one message takes: an attribute ends at 64 KiB.
const chunk = 500

func elements(part []Element) []nftables.SetElement {
	out := make([]nftables.SetElement, len(part))
	for i, e := range part {
		out[i] = nftables.SetElement{Key: e.key, Val: e.value}
	}
	return out
}

func inChunks(all []Element, do func([]nftables.SetElement) error) error {
	for len(all) > 0 {
		n := min(chunk, len(all))
		if err := do(elements(all[:n])); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

var hooks = map[string]*nftables.ChainHook{
	"prerouting":  nftables.ChainHookPrerouting,
	"forward":     nftables.ChainHookForward,
	"output":      nftables.ChainHookOutput,
	"postrouting": nftables.ChainHookPostrouting,
}

// Replace puts t in the place of the table of that name, if there is one, in one transaction: no packet
// meets a moment without rules, and tracked flows go on.
func (c *Conn) Replace(t *Table) error {
	return c.transaction("write nftables table "+t.Name, func(nl *nftables.Conn) error {
		table := &nftables.Table{Name: t.Name, Family: nftables.TableFamilyIPv4}
		nl.AddTable(table) // so that the deletion finds one
		nl.DelTable(table)
		nl.AddTable(table)
		for _, m := range t.Maps {
			c.id++
			s := m.Kind.set(table, m.Name, c.id)
			if err := nl.AddSet(s, nil); err != nil {
				return err
			}
			add := func(part []nftables.SetElement) error { return nl.SetAddElements(s, part) }
			if err := inChunks(m.Elements, add); err != nil {
				return err
			}
		}
		accept := nftables.ChainPolicyAccept
		for _, ch := range t.Chains {
			chain := &nftables.Chain{Name: ch.Name, Table: table}
			if ch.Hook != "" {
				chain.Hooknum, chain.Type, chain.Policy = hooks[ch.Hook], nftables.ChainType(ch.Type), &accept
				chain.Priority = nftables.ChainPriorityRef(nftables.ChainPriority(ch.Priority))
			}
			nl.AddChain(chain)
		}
		for _, ch := range t.Chains {
			for _, r := range ch.Rules {
				nl.AddRule(&nftables.Rule{Table: table, Chain: &nftables.Chain{Name: ch.Name, Table: table}, Exprs: r.exprs()})
			}
		}
		return nil
	})
}

func (r Rule) exprs() []expr.Any {
	var all []expr.Any
	for _, p := range r {
		all = append(all, p.exprs...)
	}
	return all
}

// Update adds and removes elements of a table's maps in one transaction. An element to remove that is not there
// (ENOENT) or one to add that is there with another value (EEXIST) fails the whole.
func (c *Conn) Update(table string, add, remove []Map) error {
	t := &nftables.Table{Name: table, Family: nftables.TableFamilyIPv4}
	return c.transaction("change nftables table "+table, func(nl *nftables.Conn) error {
		for _, m := range remove {
			s := m.Kind.set(t, m.Name, 0)
			del := func(part []nftables.SetElement) error { return nl.SetDeleteElements(s, part) }
			if err := inChunks(m.Elements, del); err != nil {
				return err
			}
		}
		for _, m := range add {
			s := m.Kind.set(t, m.Name, 0)
			put := func(part []nftables.SetElement) error { return nl.SetAddElements(s, part) }
			if err := inChunks(m.Elements, put); err != nil {
				return err
			}
		}
		return nil
	})
}

// Remove deletes the table; none of that name is no error.
func (c *Conn) Remove(table string) error {
	return c.transaction("remove nftables table "+table, func(nl *nftables.Conn) error {
		t := &nftables.Table{Name: table, Family: nftables.TableFamilyIPv4}
		nl.AddTable(t)
		nl.DelTable(t)
		return nil
	})
}

// Exists tells whether there is a table of that name.
func (c *Conn) Exists(table string) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.dial(); err != nil {
		return false, err
	}
	tables, err := c.nl.ListTablesOfFamily(nftables.TableFamilyIPv4)
	for _, t := range tables {
		if t.Name == table {
			return true, nil
		}
	}
	return false, err
}

// Blocker is a chain of other software that drops what it does not know of all forwarded IPv4 packets.
type Blocker struct {
	Family, Table, Chain string // family "ip" or "inet"
}

// Blockers lists the chains with a drop policy for forwarded packets that name no link in links. A chain that names one is
// taken to let it through.
func (c *Conn) Blockers(links ...string) ([]Blocker, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.dial(); err != nil {
		return nil, err
	}
	var found []Blocker
	for _, f := range []struct {
		family nftables.TableFamily
		name   string
	}{{nftables.TableFamilyIPv4, "ip"}, {nftables.TableFamilyINet, "inet"}} {
		chains, err := c.nl.ListChainsOfTableFamily(f.family)
		if err != nil {
			return found, fmt.Errorf("list nftables chains: %w", err)
		}
		for _, ch := range chains {
			if ch.Hooknum == nil || *ch.Hooknum != unix.NF_INET_FORWARD || ch.Policy == nil || *ch.Policy != nftables.ChainPolicyDrop {
				continue
			}
			rules, err := c.nl.GetRules(ch.Table, ch)
			if err != nil {
				return found, fmt.Errorf("list rules of chain %s: %w", ch.Name, err)
			}
			if !namesAny(rules, links) {
				found = append(found, Blocker{f.name, ch.Table.Name, ch.Name})
			}
		}
	}
	return found, nil
}

// namesAny tells whether a rule compares with the name of one of the links.
func namesAny(rules []*nftables.Rule, links []string) bool {
	for _, r := range rules {
		for _, e := range r.Exprs {
			cmp, ok := e.(*expr.Cmp)
			if !ok {
				continue
			}
			for _, l := range links {
				if strings.TrimRight(string(cmp.Data), "\x00") == l || bytes.Equal(cmp.Data, LinkKey(l)) {
					return true
				}
			}
		}
	}
	return false
}
