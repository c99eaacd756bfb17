package world

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// ServeLong has h answer on a TCP port as Serve does, and then send back what it hears until the client ends
// the connection.
func (h *Host) ServeLong(port uint16) error {
	h.served[port] = true
	var l *net.TCPListener
	err := h.Do(func() (err error) {
		l, err = net.ListenTCP("tcp", &net.TCPAddr{Port: int(port)})
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: listen on port %d: %w", h, port, err)
	}
	h.closer = append(h.closer, l)
	go func() {
		for {
			c, err := l.AcceptTCP()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				go h.answerLong(c)
			}
		}
	}()
	return nil
}

// answerLong serves one connection of ServeLong.
func (h *Host) answerLong(c *net.TCPConn) {
	defer c.Close()
	dst := c.LocalAddr().(*net.TCPAddr).AddrPort()
	src := c.RemoteAddr().(*net.TCPAddr).AddrPort()
	if _, err := fmt.Fprintln(c, Answer{Host: h.String(), Dst: unmap(dst), Src: unmap(src)}); err != nil {
		return
	}
	_, _ = io.Copy(c, c)
}

// A Conn is a connection to a server of [Host.ServeLong].
type Conn struct {
	// Answer is what the server said at the beginning.
	Answer Answer
	conn   *net.TCPConn
	lines  *bufio.Reader
	wait   time.Duration
}

// Connect connects from an address of h to a server of ServeLong. Wait is how long it waits for each answer.
func (h *Host) Connect(src, dst netip.AddrPort, wait time.Duration) (*Conn, error) {
	c := &Conn{wait: wait}
	err := h.Do(func() error {
		d := net.Dialer{Timeout: wait, LocalAddr: net.TCPAddrFromAddrPort(src)}
		conn, err := d.Dial("tcp", dst.String())
		if err != nil {
			return err
		}
		c.conn = conn.(*net.TCPConn)
		c.lines = bufio.NewReader(conn)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("on %s: %w", h, err)
	}
	line, err := c.line()
	if err == nil {
		c.Answer, err = parseAnswer(line)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("on %s: connect to %s: %w", h, dst, err), c.conn.Close())
	}
	return c, nil
}

// line reads a line.
func (c *Conn) line() (string, error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(c.wait)); err != nil {
		return "", err
	}
	return c.lines.ReadString('\n')
}

// Check returns an error unless the server still sends back what it hears.
func (c *Conn) Check() error {
	const text = "are you there?\n"
	if _, err := io.WriteString(c.conn, text); err != nil {
		return err
	}
	if line, err := c.line(); err != nil || line != text {
		return fmt.Errorf("the connection to %s sent %q back, %w", c.Answer.Dst, line, err)
	}
	return nil
}

// Close ends the connection.
func (c *Conn) Close() error { return c.conn.Close() }

// Abort ends the connection with a reset, which nothing on the way remembers for long.
func (c *Conn) Abort() error {
	if err := c.conn.SetLinger(0); err != nil {
		return err
	}
	return c.conn.Close()
}
