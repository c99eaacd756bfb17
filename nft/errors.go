package nft

import "fmt"

// A RefusedError says which step of a transaction the kernel refused; nothing of the transaction
// was done.
type RefusedError struct {
	// Op is the step, with copies of what it points to: valid for as long as wanted.
	Op Op
	// Err is the kernel's error, usually a unix.Errno such as EEXIST.
	Err error
	// Text is the kernel's own explanation (NLMSGERR_ATTR_MSG); usually empty.
	Text string
}

// Error returns the step in nft syntax and the kernel's error.
func (e *RefusedError) Error() string {
	if e.Text != "" {
		return fmt.Sprintf("%s: %v (%s)", e.Op, e.Err, e.Text)
	}
	return fmt.Sprintf("%s: %v", e.Op, e.Err)
}

// Unwrap returns the kernel's error.
func (e *RefusedError) Unwrap() error { return e.Err }
