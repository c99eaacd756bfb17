package world

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Outcome is what became of a request.
type Outcome uint8

// The outcomes.
const (
	Answered Outcome = iota // a server answered
	Refused                 // an ICMP error or a TCP reset came back
	Silent                  // nothing came back
)

// String returns a word for the outcome.
func (o Outcome) String() string { return [...]string{"answered", "refused", "silence"}[o] }

// A Result is an outcome and, if a server answered, its answer.
type Result struct {
	Outcome Outcome
	Answer  Answer
}

// String returns the result in words.
func (r Result) String() string {
	if r.Outcome != Answered {
		return r.Outcome.String()
	}
	return fmt.Sprintf("answered by %s at %s, which saw %s", r.Answer.Host, r.Answer.Dst, r.Answer.Src)
}

// Ask sends one request from an address of h, of any port, and tells what becomes of it. Proto is
// "tcp" or "udp". Silence is to hear nothing for the time given.
func (h *Host) Ask(proto string, src netip.Addr, dst netip.AddrPort, silence time.Duration) (Result, error) {
	var r Result
	err := h.Do(func() (err error) {
		r, err = ask(proto, src, dst, silence)
		return err
	})
	if err != nil {
		return r, fmt.Errorf("ask %s/%s from %s on %s: %w", dst, proto, src, h, err)
	}
	return r, nil
}

// ask is Ask in the namespace of the calling thread.
func ask(proto string, src netip.Addr, dst netip.AddrPort, silence time.Duration) (Result, error) {
	d := net.Dialer{Timeout: silence}
	if src.IsValid() {
		d.LocalAddr = &net.TCPAddr{IP: src.AsSlice()}
		if proto == "udp" {
			d.LocalAddr = &net.UDPAddr{IP: src.AsSlice()}
		}
	}
	c, err := d.Dial(proto, dst.String())
	if err != nil {
		return failed(err)
	}
	defer c.Close()
	if proto == "udp" {
		if _, err := c.Write([]byte("?\n")); err != nil {
			return failed(err)
		}
	}
	if err := c.SetReadDeadline(time.Now().Add(max(silence, time.Second))); err != nil {
		return Result{}, err
	}
	if proto == "udp" {
		_ = c.SetReadDeadline(time.Now().Add(silence))
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return failed(err)
	}
	a, err := parseAnswer(line)
	return Result{Outcome: Answered, Answer: a}, err
}

// failed tells what an error of a request means. Local errors that do not come from the network
// are handed on.
func failed(err error) (Result, error) {
	switch {
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ECONNRESET):
		return Result{Outcome: Refused}, nil
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, unix.ETIMEDOUT), errors.Is(err, unix.EPERM):
		// EPERM is what a process on the node gets whose packet a filter drops.
		return Result{Outcome: Silent}, nil
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return Result{Outcome: Silent}, nil
	}
	return Result{}, err
}
