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
		r, err = Ask(proto, netip.AddrPortFrom(src, 0), dst, silence)
		return err
	})
	if err != nil {
		return r, fmt.Errorf("on %s: %w", h, err)
	}
	return r, nil
}

// Ask is [Host.Ask] in the namespace of the calling thread. A source port of 0 means any.
func Ask(proto string, src, dst netip.AddrPort, silence time.Duration) (Result, error) {
	r, err := ask(proto, src, dst, silence)
	if err != nil {
		return r, fmt.Errorf("ask %s/%s from %s: %w", dst, proto, src, err)
	}
	return r, nil
}

// ask is Ask without its words around errors.
func ask(proto string, src, dst netip.AddrPort, silence time.Duration) (Result, error) {
	d := net.Dialer{Timeout: silence, LocalAddr: net.TCPAddrFromAddrPort(src)}
	if proto == "udp" {
		d.LocalAddr = net.UDPAddrFromAddrPort(src)
	}
	c, err := d.Dial(proto, dst.String())
	if err != nil {
		return failed(err)
	}
	defer c.Close()
	wait := silence
	if proto == "udp" {
		// EPERM is what a process on the node gets whose packet a filter took; whether it was refused
		// or dropped the next read tells.
		if _, err := c.Write([]byte("?\n")); err != nil && !errors.Is(err, unix.EPERM) {
			return failed(err)
		}
	} else {
		wait = max(wait, 5*time.Second) // it is connected: an answer will come
	}
	if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return Result{}, err
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
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, unix.ETIMEDOUT):
		return Result{Outcome: Silent}, nil
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return Result{Outcome: Silent}, nil
	}
	return Result{}, err
}
