package nft

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Check returns what Linux or nft would not take in tables, all of it joined, or nil. It costs
// about as much as making the tables: it is for tests and for `render`, not for every change.
func Check(tables []Table) error {
	var errs []error
	seen := map[[2]string]bool{}
	for i := range tables {
		t := &tables[i]
		key := [2]string{t.Family.String(), t.Name}
		if seen[key] {
			errs = append(errs, fmt.Errorf("table %s %s: there are two", t.Family, t.Name))
		}
		seen[key] = true
		if err := t.Check(); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Check returns what Linux or nft would not take in the table, all of it joined, or nil.
func (t *Table) Check() error {
	c := checker{table: t, sets: map[string]*Set{}, chains: map[string]*Chain{}}
	c.at = fmt.Sprintf("table %s %s", t.Family, t.Name)
	c.name(t.Name)
	c.comment(t.Comment)
	c.objects()
	for i := range t.Sets {
		c.set(&t.Sets[i])
	}
	for i := range t.Chains {
		c.chain(&t.Chains[i])
	}
	for _, name := range slices.Sorted(maps.Keys(t.Elements)) {
		c.elements(name, t.Elements[name])
	}
	if len(c.errs) == 0 {
		c.walk() // needs references that resolve
	}
	return errors.Join(c.errs...)
}

// A checker collects what is wrong with a table.
type checker struct {
	table  *Table
	sets   map[string]*Set
	chains map[string]*Chain
	at     string // what is being looked at, for messages
	errs   []error
}

// errorf adds an error about what is being looked at.
func (c *checker) errorf(format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf("%s: %s", c.at, fmt.Sprintf(format, args...)))
}

// enter says what is being looked at.
func (c *checker) enter(kind, name string) {
	c.at = fmt.Sprintf("%s %s %s %s", kind, c.table.Family, c.table.Name, name)
}

// objects fills the indices and finds names that occur twice.
func (c *checker) objects() {
	for i := range c.table.Sets {
		s := &c.table.Sets[i]
		c.enter(s.word(), s.Name)
		if c.sets[s.Name] != nil {
			c.errorf("there are two")
		}
		c.sets[s.Name] = s
	}
	for i := range c.table.Chains {
		ch := &c.table.Chains[i]
		c.enter("chain", ch.Name)
		if c.chains[ch.Name] != nil {
			c.errorf("there are two")
		}
		c.chains[ch.Name] = ch
	}
}

// maxName is the longest name in bytes (NFT_NAME_MAXLEN minus the zero at the end).
const maxName = 255

// name checks a name: Linux takes all but the empty one, nft wants a word.
func (c *checker) name(name string) {
	switch {
	case name == "":
		c.errorf("no name")
	case len(name) > maxName:
		c.errorf("name of %d bytes; the limit is %d", len(name), maxName)
	case !isLetter(rune(name[0])), strings.ContainsFunc(name, func(r rune) bool {
		return !isLetter(r) && (r < '0' || r > '9') && !strings.ContainsRune("/-_.", r)
	}):
		c.errorf("nft cannot read the name")
	}
}

// isLetter reports whether a name may begin with r.
func isLetter(r rune) bool { return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' }

// comment checks a comment.
func (c *checker) comment(s string) {
	switch {
	case len(s) > maxComment:
		c.errorf("comment of %d bytes; the limit is %d", len(s), maxComment)
	case !utf8.ValidString(s) || strings.ContainsRune(s, '"') || strings.ContainsFunc(s, unicode.IsControl):
		c.errorf("nft cannot read the comment %q", s)
	}
}

// set checks a definition.
func (c *checker) set(s *Set) {
	c.enter(s.word(), s.Name)
	c.name(s.Name)
	c.comment(s.Comment)
	if len(s.Key) == 0 {
		c.errorf("no key")
	}
	for _, k := range append(slices.Clone(s.Key), s.Data...) {
		if k.size(c.table.Family) == 0 && !s.IsVerdictMap() {
			c.errorf("%s is no field of a key or a value", k.Text(c.table.Family))
		}
	}
	if n := Size(c.table.Family, s.Key); n > MaxValue {
		c.errorf("key of %d bytes; the limit is %d", n, MaxValue)
	}
	switch {
	case s.Dynamic && s.Size == 0:
		c.errorf("dynamic and of no size")
	case s.Dynamic && s.Interval:
		c.errorf("dynamic and with intervals")
	case !s.Dynamic && s.Timeout != 0:
		c.errorf("a timeout, but not dynamic")
	case s.Interval && len(s.Key) < 2:
		c.errorf("intervals of a single field")
	}
}

// chain checks a chain and its rules.
func (c *checker) chain(ch *Chain) {
	c.enter("chain", ch.Name)
	c.name(ch.Name)
	c.comment(ch.Comment)
	if ch.Base != nil {
		c.base(ch.Base)
	}
	for i := range ch.Rules {
		r := &ch.Rules[i]
		c.enter("rule", ch.Name+" "+r.Text(c.table.Family))
		c.comment(r.Comment)
		if len(r.Stmts) == 0 {
			c.errorf("no statements")
		}
		for _, s := range r.Stmts {
			c.stmt(s)
		}
	}
}

// minNATPriority is the least priority of a nat chain: conntrack (-200) comes first.
const minNATPriority = -199

// base checks where a chain is hooked in.
func (c *checker) base(b *Base) {
	switch {
	case b.Hook > Postrouting:
		c.errorf("hook %d does not exist", b.Hook)
	case b.Type != TypeFilter && b.Type != TypeNAT:
		c.errorf("type %q is none of ours", b.Type)
	case b.Type == TypeNAT && b.Hook == Forward:
		c.errorf("nat has no hook forward")
	case b.Type == TypeNAT && b.Priority < minNATPriority:
		c.errorf("nat at priority %d comes before conntrack", b.Priority)
	}
}
