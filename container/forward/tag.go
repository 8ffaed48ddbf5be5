package forward

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/template/parse"
	"time"
)

// Tags are text/template's templates, read by its parser but carried out here: the package itself calls methods by names that
// only a run knows, so that a program with it keeps every method of every type that it links, five of the daemon's 28 MB. What a
// tag can need is here, fields, methods, variables, conditions, loops and functions; templates within templates are not.

// tagRun carries one template out. Values are nil, bool, int, float64, string, []string, map[string]string, time.Time and *Info.
type tagRun struct {
	vars []tagVar // the innermost last
	out  strings.Builder
}

type tagVar struct {
	name  string
	value any
}

// What leaves a loop.
var (
	errBreak    = errors.New("break outside of a loop")
	errContinue = errors.New("continue outside of a loop")
)

// execute carries a template out on the container.
func (i *Info) execute(text string) (string, error) {
	known := make(map[string]any, len(tagFuncs))
	for name := range tagFuncs {
		known[name] = true
	}
	trees, err := parse.Parse("log-tag", text, "", "", known)
	if err != nil {
		return "", err
	}
	tree := trees["log-tag"]
	if tree == nil {
		return "", nil
	}
	r := tagRun{vars: []tagVar{{"$", i}}}
	if err := r.walk(i, tree.Root); err != nil {
		return "", err
	}
	return r.out.String(), nil
}

// walk writes what a node gives.
func (r *tagRun) walk(dot any, node parse.Node) error {
	switch n := node.(type) {
	case *parse.ListNode:
		for _, child := range n.Nodes {
			if err := r.walk(dot, child); err != nil {
				return err
			}
		}
	case *parse.TextNode:
		r.out.Write(n.Text)
	case *parse.ActionNode:
		v, err := r.pipe(dot, n.Pipe)
		if err == nil && len(n.Pipe.Decl) == 0 {
			err = r.print(v)
		}
		return err
	case *parse.IfNode:
		return r.branch(dot, &n.BranchNode, false)
	case *parse.WithNode:
		return r.branch(dot, &n.BranchNode, true)
	case *parse.RangeNode:
		return r.loop(dot, n)
	case *parse.BreakNode:
		return errBreak
	case *parse.ContinueNode:
		return errContinue
	case *parse.CommentNode:
	default:
		return fmt.Errorf("%s is not possible in a tag", node)
	}
	return nil
}

func (r *tagRun) print(v any) error {
	switch v := v.(type) {
	case nil:
		r.out.WriteString("<no value>")
	case *Info:
		return errors.New("the container itself can't be printed: name one of its fields")
	default:
		fmt.Fprint(&r.out, v)
	}
	return nil
}

func (r *tagRun) branch(dot any, n *parse.BranchNode, with bool) error {
	defer r.leave(len(r.vars))
	v, err := r.pipe(dot, n.Pipe)
	switch {
	case err != nil:
		return err
	case truth(v) && with:
		return r.walk(v, n.List)
	case truth(v):
		return r.walk(dot, n.List)
	case n.ElseList != nil:
		return r.walk(dot, n.ElseList)
	}
	return nil
}

// leave forgets the variables of a block.
func (r *tagRun) leave(vars int) { r.vars = r.vars[:vars] }

// loop goes over a list, or over a map in the order of its keys.
func (r *tagRun) loop(dot any, n *parse.RangeNode) error {
	defer r.leave(len(r.vars))
	v, err := r.pipe(dot, n.Pipe)
	if err != nil {
		return err
	}
	keys, values, err := elements(v)
	if err != nil {
		return err
	}
	if len(keys) == 0 && n.ElseList != nil {
		return r.walk(dot, n.ElseList)
	}
	outside := len(r.vars)
	for i, value := range values {
		switch len(n.Pipe.Decl) {
		case 1:
			r.set(n.Pipe, 0, value)
		case 2:
			r.set(n.Pipe, 0, keys[i])
			r.set(n.Pipe, 1, value)
		}
		err := r.walk(value, n.List)
		r.leave(outside)
		switch {
		case err == errBreak:
			return nil
		case err != nil && err != errContinue:
			return err
		}
	}
	return nil
}

func elements(v any) (keys, values []any, err error) {
	switch v := v.(type) {
	case nil:
	case []string:
		for i, s := range v {
			keys, values = append(keys, i), append(values, s)
		}
	case map[string]string:
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			keys, values = append(keys, name), append(values, v[name])
		}
	default:
		return nil, nil, fmt.Errorf("range can't iterate over %v", v)
	}
	return keys, values, nil
}

// set gives a declared variable its value, or one that exists already.
func (r *tagRun) set(p *parse.PipeNode, decl int, value any) {
	name := p.Decl[decl].Ident[0]
	if !p.IsAssign {
		r.vars = append(r.vars, tagVar{name, value})
		return
	}
	for i := len(r.vars) - 1; i >= 0; i-- {
		if r.vars[i].name == name {
			r.vars[i].value = value
			return
		}
	}
}

// pipe carries out commands, each with the value of the one before as its last argument.
func (r *tagRun) pipe(dot any, p *parse.PipeNode) (value any, err error) {
	for i, c := range p.Cmds {
		var args []any
		if i > 0 {
			args = []any{value}
		}
		if value, err = r.command(dot, c, args); err != nil {
			return nil, err
		}
	}
	if len(p.Decl) == 1 {
		r.set(p, 0, value)
	}
	return value, nil
}

func (r *tagRun) command(dot any, c *parse.CommandNode, final []any) (any, error) {
	first := c.Args[0]
	name, function := first.(*parse.IdentifierNode)
	if function && (name.Ident == "and" || name.Ident == "or") {
		return r.shortcut(dot, c, final)
	}
	var args []any
	for _, node := range c.Args[1:] {
		v, err := r.value(dot, node, nil)
		if err != nil {
			return nil, err
		}
		args = append(args, v)
	}
	args = append(args, final...)
	if function {
		return callTagFunc(name.Ident, args)
	}
	return r.value(dot, first, args)
}

// shortcut is and and or: what follows the value that decides isn't looked at.
func (r *tagRun) shortcut(dot any, c *parse.CommandNode, final []any) (value any, err error) {
	name := c.Args[0].(*parse.IdentifierNode).Ident
	if len(c.Args)-1+len(final) == 0 {
		return nil, fmt.Errorf("%s needs a value", name)
	}
	for _, node := range c.Args[1:] {
		if value, err = r.value(dot, node, nil); err != nil || truth(value) == (name == "or") {
			return value, err
		}
	}
	for _, value = range final {
	}
	return value, nil
}

// value is what an argument, or the first word of a command, stands for.
func (r *tagRun) value(dot any, node parse.Node, args []any) (any, error) {
	switch n := node.(type) {
	case *parse.FieldNode:
		return chain(dot, n.Ident, args)
	case *parse.VariableNode:
		for i := len(r.vars) - 1; i >= 0; i-- {
			if r.vars[i].name == n.Ident[0] {
				return chain(r.vars[i].value, n.Ident[1:], args)
			}
		}
		return nil, fmt.Errorf("undefined variable %s", n)
	case *parse.ChainNode:
		v, err := r.value(dot, n.Node, nil)
		if err != nil {
			return nil, err
		}
		return chain(v, n.Field, args)
	case *parse.IdentifierNode:
		return callTagFunc(n.Ident, args)
	}
	if len(args) > 0 {
		return nil, fmt.Errorf("can't give arguments to %s", node)
	}
	switch n := node.(type) {
	case *parse.PipeNode:
		defer r.leave(len(r.vars))
		return r.pipe(dot, n)
	case *parse.DotNode:
		return dot, nil
	case *parse.StringNode:
		return n.Text, nil
	case *parse.BoolNode:
		return n.True, nil
	case *parse.NumberNode:
		// As a Go constant: 1.0 is a float, 0x1e and 'e' are not.
		if n.IsInt && (!n.IsFloat || strings.HasPrefix(strings.ToLower(strings.TrimLeft(n.Text, "+-")), "0x") || !strings.ContainsAny(n.Text, ".eEpP")) {
			return int(n.Int64), nil
		}
		if n.IsFloat {
			return n.Float64, nil
		}
	}
	return nil, fmt.Errorf("%s is not possible in a tag", node)
}

// chain follows fields from a value; arguments are for the last.
func chain(v any, names []string, args []any) (any, error) {
	if len(names) == 0 && len(args) > 0 {
		return nil, fmt.Errorf("can't give arguments to %v", v)
	}
	for i, name := range names {
		var given []any
		if i == len(names)-1 {
			given = args
		}
		var err error
		if v, err = field(v, name, given); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// field is a field of a value or what its method gives.
func field(v any, name string, args []any) (any, error) {
	if at, ok := v.(time.Time); ok && name == "Format" && len(args) == 1 {
		if layout, ok := args[0].(string); ok {
			return at.Format(layout), nil
		}
	}
	if len(args) > 0 {
		return nil, fmt.Errorf("%s has arguments but takes none, or others", name)
	}
	switch v := v.(type) {
	case *Info:
		return v.field(name)
	case map[string]string:
		if value, ok := v[name]; ok {
			return value, nil
		}
		return nil, nil
	case time.Time:
		switch name {
		case "Unix":
			return int(v.Unix()), nil
		case "UnixNano":
			return int(v.UnixNano()), nil
		case "UTC":
			return v.UTC(), nil
		case "Local":
			return v.Local(), nil
		case "String":
			return v.String(), nil
		}
	}
	return nil, fmt.Errorf("can't evaluate field %s", name)
}

// field is what the name stands for in a tag.
func (i *Info) field(name string) (any, error) {
	switch name {
	case "Driver":
		return i.Driver, nil
	case "Opts":
		return i.Opts, nil
	case "LogPath":
		return i.LogPath, nil
	case "ContainerID":
		return i.ContainerID, nil
	case "ContainerName":
		return i.ContainerName, nil
	case "ContainerEntrypoint":
		return i.ContainerEntrypoint, nil
	case "ContainerArgs":
		return i.ContainerArgs, nil
	case "ContainerImageID":
		return i.ContainerImageID, nil
	case "ContainerImageName":
		return i.ContainerImageName, nil
	case "ContainerCreated":
		return i.ContainerCreated, nil
	case "ContainerEnv":
		return i.ContainerEnv, nil
	case "ContainerLabels":
		return i.ContainerLabels, nil
	case "DaemonName":
		return i.DaemonName, nil
	case "ID":
		return i.ID(), nil
	case "FullID":
		return i.FullID(), nil
	case "Name":
		return i.Name(), nil
	case "ImageID":
		return i.ImageID(), nil
	case "ImageFullID":
		return i.ImageFullID(), nil
	case "ImageName":
		return i.ImageName(), nil
	case "Command":
		return i.Command(), nil
	case "Hostname":
		return i.Hostname()
	}
	return nil, fmt.Errorf("can't evaluate field %s: a container has none of that name", name)
}
