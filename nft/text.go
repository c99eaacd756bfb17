package nft

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
)

// String returns the table as nft lists it. Elements are sorted by their key, which nft does only
// in part: compare listings with their element lines sorted.
func (t *Table) String() string {
	var b strings.Builder
	t.Write(&b) //nolint:errcheck // a Builder takes everything
	return b.String()
}

// Write writes what String returns, without holding all of it in memory.
func (t *Table) Write(w io.Writer) error {
	b := bufio.NewWriterSize(w, 1<<16)
	fmt.Fprintf(b, "table %s %s {\n", t.Family, t.Name)
	if t.Comment != "" {
		fmt.Fprintf(b, "\tcomment %s\n", quote(t.Comment))
	}
	between := ""
	for i := range t.Sets {
		b.WriteString(between)
		t.writeSet(b, &t.Sets[i])
		between = "\n"
	}
	for i := range t.Chains {
		b.WriteString(between)
		t.Chains[i].write(b, t.Family)
		between = "\n"
	}
	b.WriteString("}\n")
	return b.Flush()
}

// writeSet writes the definition and the elements of a set.
func (t *Table) writeSet(b *bufio.Writer, s *Set) {
	fmt.Fprintf(b, "\t%s %s {\n", s.word(), s.Name)
	for _, line := range s.lines(t.Family) {
		fmt.Fprintf(b, "\t\t%s\n", line)
	}
	if elements := s.sorted(t.Family, t.Elements[s.Name]); len(elements) > 0 {
		b.WriteString("\t\telements = { ")
		s.writeElements(b, t.Family, elements)
		b.WriteString(" }\n")
	}
	b.WriteString("\t}\n")
}

// writeElements writes elements with as many in a line as nft puts there.
func (s *Set) writeElements(b *bufio.Writer, f Family, elements []*Element) {
	perLine := s.perLine(f)
	var line []byte
	for i, e := range elements {
		switch {
		case i == 0:
		case i%perLine == 0:
			b.WriteString(",\n\t\t\t     ")
		default:
			b.WriteString(", ")
		}
		line = s.AppendElement(line[:0], f, e)
		b.Write(line)
	}
}

// perLine returns how many elements nft puts in a line: one, but for short keys.
func (s *Set) perLine(f Family) int {
	if len(s.Key) != 1 {
		return 1
	}
	switch s.Key[0].Kind {
	case SAddr, DAddr:
		if f == IPv6 {
			return 1
		}
		return 2
	case L4Proto, DPort, TCPDPort, UDPDPort, SCTPDPort, Random, Hash, Turn, SourceHash, Priority:
		return 5
	case Verdicts, UnknownField:
	}
	return 1
}

// sorted returns the elements in the order of their keys, field by field as numbers.
func (s *Set) sorted(f Family, elements []Element) []*Element {
	r := make([]*Element, len(elements))
	for i := range elements {
		r[i] = &elements[i]
	}
	if !slices.ContainsFunc(s.Key, hostOrder) {
		slices.SortStableFunc(r, func(a, b *Element) int {
			return cmp.Or(a.Key.Compare(&b.Key), a.End.Compare(&b.End))
		})
		return r
	}
	slices.SortStableFunc(r, func(a, b *Element) int { return s.compareKeys(f, &a.Key, &b.Key) })
	return r
}

// word returns what nft calls s.
func (s *Set) word() string {
	if s.IsMap() {
		return "map"
	}
	return "set"
}

// lines returns the definition of a set, a line for each property, in nft's order.
func (s *Set) lines(f Family) []string {
	lines := []string{s.typeLine(f)}
	if s.Size > 0 {
		lines = append(lines, fmt.Sprintf("size %d", s.Size))
	}
	switch {
	case s.Dynamic:
		lines = append(lines, "flags dynamic,timeout")
	case s.Interval:
		lines = append(lines, "flags interval")
	}
	if s.Timeout > 0 {
		lines = append(lines, "timeout "+durationText(s.Timeout))
	}
	if s.Comment != "" {
		lines = append(lines, "comment "+quote(s.Comment))
	}
	return lines
}

// typeLine returns what a set holds: by type where the type says it all, by the expression
// (typeof) where nft would not load what it listed otherwise.
func (s *Set) typeLine(f Family) string {
	word, name := "type", Field.typeName
	if s.Typeof() {
		word, name = "typeof", Field.typeofText
	}
	join := func(fields []Field) string {
		words := make([]string, len(fields))
		for i, field := range fields {
			words[i] = name(field, f)
		}
		return strings.Join(words, " . ")
	}
	if !s.IsMap() {
		return word + " " + join(s.Key)
	}
	return word + " " + join(s.Key) + " : " + join(s.Data)
}

// Typeof reports whether the set is declared by expressions instead of types: it is if a type
// has no name that nft can read, and for all data maps.
func (s *Set) Typeof() bool {
	if s.IsMap() && !s.IsVerdictMap() {
		return true
	}
	return slices.ContainsFunc(s.Key, hostOrder)
}

// write writes a chain with its rules.
func (c *Chain) write(b *bufio.Writer, f Family) {
	fmt.Fprintf(b, "\tchain %s {\n", c.Name)
	for _, line := range c.lines() {
		fmt.Fprintf(b, "\t\t%s\n", line)
	}
	for i := range c.Rules {
		fmt.Fprintf(b, "\t\t%s\n", c.Rules[i].Text(f))
	}
	b.WriteString("\t}\n")
}

// lines returns the properties of a chain, each on a line.
func (c *Chain) lines() []string {
	var lines []string
	if c.Comment != "" {
		lines = append(lines, "comment "+quote(c.Comment))
	}
	if c.Base != nil {
		lines = append(lines, c.Base.String())
	}
	return lines
}

// String returns the line that hooks a base chain in.
func (b Base) String() string {
	return fmt.Sprintf("type %s hook %s priority %s; policy accept;", b.Type, b.Hook, b.priority())
}

// priority returns the priority as nft lists it: as a name, or as a name and a small distance,
// where a name exists for the hook.
func (b Base) priority() string {
	names := []struct {
		name  string
		value int32
	}{{"raw", -300}, {"mangle", -150}, {"filter", 0}, {"security", 50}}
	switch b.Hook {
	case Prerouting:
		names = append(names, struct {
			name  string
			value int32
		}{"dstnat", -100})
	case Postrouting:
		names = append(names, struct {
			name  string
			value int32
		}{"srcnat", 100})
	case Input, Forward, Output:
	}
	for _, n := range names {
		switch d := b.Priority - n.value; {
		case d == 0:
			return n.name
		case d > 0 && d <= 10:
			return fmt.Sprintf("%s + %d", n.name, d)
		case d < 0 && d >= -10:
			return fmt.Sprintf("%s - %d", n.name, -d)
		}
	}
	return fmt.Sprint(b.Priority)
}

// Text returns the rule as nft lists it in a table of the family.
func (r *Rule) Text(f Family) string {
	words := make([]string, 0, len(r.Stmts)+1)
	for _, s := range r.Stmts {
		words = append(words, s.text(f))
	}
	if r.Comment != "" {
		words = append(words, "comment "+quote(r.Comment))
	}
	return strings.Join(words, " ")
}
