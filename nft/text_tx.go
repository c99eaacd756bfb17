package nft

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// String returns the transaction as a script for nft, a line for each command.
func (tx Tx) String() string {
	var b strings.Builder
	tx.Write(&b) //nolint:errcheck // a Builder takes everything
	return b.String()
}

// Write writes what String returns, without holding all of it in memory.
func (tx Tx) Write(w io.Writer) error {
	if tx == nil {
		return nil
	}
	b := bufio.NewWriterSize(w, 1<<16)
	var line []byte
	for op := range tx {
		line = append(op.append(line[:0]), '\n')
		b.Write(line) //nolint:errcheck // Flush returns it
	}
	return b.Flush()
}

// String returns the step as a script for nft, without a newline at its end.
func (op Op) String() string { return string(op.append(nil)) }

// append appends what String returns.
func (op Op) append(b []byte) []byte {
	switch {
	case op.Element != nil && op.Set != nil:
		return op.appendElement(b)
	case op.Set != nil:
		return op.appendObject(b, op.Set.word(), op.Set.Name, op.Set.lines(op.Family))
	case op.Chain != nil:
		return op.appendChain(b)
	case op.Table != nil:
		var lines []string
		if op.Table.Comment != "" {
			lines = []string{"comment " + quote(op.Table.Comment)}
		}
		return op.appendObject(b, "table", "", lines)
	}
	return append(b, "# nothing"...)
}

// String returns the word of nft for the verb.
func (v Verb) String() string {
	if v == Delete {
		return "delete"
	}
	return "add"
}

// appendElement appends "add element ip nftproxy services { ... }".
func (op Op) appendElement(b []byte) []byte {
	b = fmt.Appendf(b, "%s element %s %s %s { ", op.Verb, op.Family, op.Name, op.Set.Name)
	b = op.Set.AppendElement(b, op.Family, op.Element)
	return append(b, " }"...)
}

// appendObject appends the command for a table, a set or a chain; name is empty for the table.
func (op Op) appendObject(b []byte, word, name string, lines []string) []byte {
	b = fmt.Appendf(b, "%s %s %s %s", op.Verb, word, op.Family, op.Name)
	if name != "" {
		b = append(b, ' ')
		b = append(b, name...)
	}
	if op.Verb == Delete || len(lines) == 0 {
		return b
	}
	b = append(b, " {"...)
	for _, line := range lines {
		b = append(b, ' ')
		b = append(b, strings.TrimSuffix(line, ";")...)
		b = append(b, ';')
	}
	return append(b, " }"...)
}

// appendChain appends the commands for a chain: its rules go first, and come back one by one.
func (op Op) appendChain(b []byte) []byte {
	c := op.Chain
	if op.Verb == Delete {
		b = fmt.Appendf(b, "flush chain %s %s %s\n", op.Family, op.Name, c.Name)
		return op.appendObject(b, "chain", c.Name, nil)
	}
	b = op.appendObject(b, "chain", c.Name, c.lines())
	b = fmt.Appendf(b, "\nflush chain %s %s %s", op.Family, op.Name, c.Name)
	for i := range c.Rules {
		text := c.Rules[i].Text(op.Family)
		if strings.HasPrefix(text, "#") {
			b = fmt.Appendf(b, "\n%s", text)
			continue
		}
		b = fmt.Appendf(b, "\nadd rule %s %s %s %s", op.Family, op.Name, c.Name, text)
	}
	return b
}
