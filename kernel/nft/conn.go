package nft

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
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
const chunk = 400

func elements(part []Element) (out []nftables.SetElement) {
	for _, e := range part {
		one := nftables.SetElement{Key: e.key, Val: e.value}
		if e.chain != "" {
			one.VerdictData = &expr.Verdict{Kind: expr.VerdictJump, Chain: e.chain}
		}
		out = append(out, one)
		if e.end != nil {
			out = append(out, nftables.SetElement{Key: e.end, IntervalEnd: true})
		}
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

// Replace puts tables in the place of those of the same names, in one transaction: no packet
// meets a moment without rules, and tracked flows go on. Of a table that is there, chains that are Theirs stay with their rules.
func (c *Conn) Replace(tables ...*Table) error {
	what := "write nftables table"
	for _, t := range tables {
		what += " " + t.Name
	}
	return c.transaction(what, func(nl *nftables.Conn) error {
		for _, t := range tables {
			table := t.Family.table(t.Name)
			theirs, err := empty(nl, table, t)
			if err != nil {
				return err
			}
			nl.AddTable(table)
			for _, m := range t.Maps {
				c.id++
				if err := nl.AddSet(m.Kind.set(table, m.Name, c.id), nil); err != nil {
					return err
				}
			}
			addChains(nl, table, slices.DeleteFunc(slices.Clone(t.Chains), func(ch Chain) bool { return slices.Contains(theirs, ch.Name) }))
			if err := addElements(nl, table, t.Maps); err != nil { // verdicts lead to chains
				return err
			}
		}
		return nil
	})
}

// empty takes away what is in a table, but for chains that are the administrator's, and names those.
func empty(nl *nftables.Conn, table *nftables.Table, t *Table) (theirs []string, err error) {
	chains, err := nl.ListChainsOfTableFamily(table.Family)
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	chains = slices.DeleteFunc(chains, func(ch *nftables.Chain) bool { return ch.Table.Name != t.Name })
	for _, ch := range chains {
		if slices.ContainsFunc(t.Chains, func(own Chain) bool { return own.Theirs && own.Name == ch.Name }) {
			theirs = append(theirs, ch.Name)
		}
	}
	if len(theirs) == 0 {
		tables, err := nl.ListTablesOfFamily(table.Family)
		if err != nil {
			return nil, fmt.Errorf("list nftables tables: %w", err)
		}
		// A deletion costs the closing of this connection 12 ms: the kernel waits until nobody can see the rules any more.
		if slices.ContainsFunc(tables, func(other *nftables.Table) bool { return other.Name == table.Name }) {
			nl.DelTable(table)
		}
		return nil, nil
	}
	sets, err := nl.GetSets(table)
	if err != nil {
		return nil, fmt.Errorf("list the maps of nftables table %s: %w", t.Name, err)
	}
	ours := slices.DeleteFunc(chains, func(ch *nftables.Chain) bool { return slices.Contains(theirs, ch.Name) })
	for _, ch := range ours {
		nl.FlushChain(ch)
	}
	for _, s := range sets {
		if !s.Anonymous {
			nl.DelSet(s)
		}
	}
	for _, ch := range ours {
		nl.DelChain(ch)
	}
	return theirs, nil
}

func addChains(nl *nftables.Conn, table *nftables.Table, chains []Chain) {
	accept := nftables.ChainPolicyAccept
	for _, ch := range chains {
		chain := &nftables.Chain{Name: ch.Name, Table: table}
		if ch.Hook != "" {
			chain.Hooknum, chain.Type, chain.Policy = hooks[ch.Hook], nftables.ChainType(ch.Type), &accept
			chain.Priority = nftables.ChainPriorityRef(nftables.ChainPriority(ch.Priority))
		}
		nl.AddChain(chain)
	}
	for _, ch := range chains {
		for _, r := range ch.Rules {
			nl.AddRule(&nftables.Rule{Table: table, Chain: &nftables.Chain{Name: ch.Name, Table: table}, Exprs: r.exprs()})
		}
	}
}

func addElements(nl *nftables.Conn, table *nftables.Table, maps []Map) error {
	for _, m := range maps {
		s := m.Kind.set(table, m.Name, 0)
		if err := inChunks(m.Elements, func(part []nftables.SetElement) error { return nl.SetAddElements(s, part) }); err != nil {
			return err
		}
	}
	return nil
}

func (r Rule) exprs() []expr.Any {
	var all []expr.Any
	for _, p := range r {
		all = append(all, p.exprs...)
	}
	return all
}

// Change is what Update does to one table: elements and chains that go, then chains and elements that come.
type Change struct {
	Family      Family
	Table       string
	Remove, Add []Map // the elements
	OldChains   []string
	NewChains   []Chain
}

// Update changes tables in one transaction. An element to remove that is not there
// (ENOENT) or one to add that is there with another value (EEXIST) fails the whole.
func (c *Conn) Update(changes ...Change) error {
	what := "change nftables table"
	for _, ch := range changes {
		what += " " + ch.Table
	}
	return c.transaction(what, func(nl *nftables.Conn) error {
		for _, ch := range changes {
			table := ch.Family.table(ch.Table)
			for _, m := range ch.Remove {
				s := m.Kind.set(table, m.Name, 0)
				if err := inChunks(m.Elements, func(part []nftables.SetElement) error { return nl.SetDeleteElements(s, part) }); err != nil {
					return err
				}
			}
			for _, name := range ch.OldChains {
				nl.FlushChain(&nftables.Chain{Name: name, Table: table})
			}
			for _, name := range ch.OldChains {
				nl.DelChain(&nftables.Chain{Name: name, Table: table})
			}
			addChains(nl, table, ch.NewChains)
			if err := addElements(nl, table, ch.Add); err != nil {
				return err
			}
		}
		return nil
	})
}

// Remove deletes tables, of whatever family; none of that name is no error.
func (c *Conn) Remove(name string) error {
	return c.transaction("remove nftables table "+name, func(nl *nftables.Conn) error {
		for _, f := range []Family{IPv4, IPv6} {
			t := f.table(name)
			nl.AddTable(t)
			nl.DelTable(t)
		}
		return nil
	})
}

// Exists tells whether there is a table of that name.
func (c *Conn) Exists(f Family, name string) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.dial(); err != nil {
		return false, err
	}
	tables, err := c.nl.ListTablesOfFamily(f.table(name).Family)
	for _, t := range tables {
		if t.Name == name {
			return true, nil
		}
	}
	return false, err
}
