package kernel

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/ipvs"
)

// maxMessages is how many steps are sent at once. It keeps a batch below 200 KB, and the errors of all of its
// steps within what the socket keeps for us.
const maxMessages = 1000

// Apply does the steps in order, many at once, and goes on after one that failed. It returns those that failed,
// in order.
//
// A step that failed for want of an answer (ENOBUFS) may have been done: whoever retries reads first.
func (k *Kernel) Apply(ops []ipvs.Op) []ipvs.OpError {
	k.mu.Lock()
	defer k.mu.Unlock()
	var failed []ipvs.OpError
	for len(ops) > 0 {
		n := run(ops)
		var errs map[int]error
		if aboutAddress(ops[0].Verb) {
			errs = k.applyAddresses(ops[:n])
		} else {
			errs = k.applySteps(ops[:n])
		}
		for i, op := range ops[:n] {
			if err := errs[i]; err != nil {
				failed = append(failed, ipvs.OpError{Op: op, Err: err})
			}
		}
		ops = ops[n:]
	}
	if cap(k.batch.buf) > 1<<16 {
		// Only the first load is so long.
		k.batch = batch{}
	}
	return failed
}

// run returns how many of the first steps go to the same socket in one batch.
func run(ops []ipvs.Op) int {
	first := aboutAddress(ops[0].Verb)
	n := slices.IndexFunc(ops, func(o ipvs.Op) bool { return aboutAddress(o.Verb) != first })
	if n < 0 {
		n = len(ops)
	}
	return min(n, maxMessages)
}

// aboutAddress reports whether steps with a verb are about addresses of the device.
func aboutAddress(v ipvs.Verb) bool { return v == ipvs.AddAddress || v == ipvs.DeleteAddress }

// all returns the same error for n steps.
func all(n int, err error) map[int]error {
	errs := make(map[int]error, n)
	for i := range n {
		errs[i] = err
	}
	return errs
}

// applySteps does steps about servers and destinations, and returns the errors of those that failed. What is
// there although it was to be added is set, in a second batch.
func (k *Kernel) applySteps(ops []ipvs.Op) map[int]error {
	c, err := k.connect()
	if err != nil {
		return all(len(ops), err)
	}
	k.batch.reset(c.steps.Seq + 1)
	for i := range ops {
		k.batch.addOp(i, c.family, &ops[i], ops[i].Verb)
	}
	errs, err := c.steps.do(&k.batch)
	if err != nil {
		return all(len(ops), errors.Join(err, k.disconnect()))
	}
	k.batch.reset(c.steps.Seq + 1)
	for _, i := range sortedKeys(errs) {
		verb := ops[i].Verb
		switch err := errs[i]; {
		case verb == ipvs.AddServer && errors.Is(err, unix.EEXIST):
			k.batch.addOp(i, c.family, &ops[i], ipvs.SetServer)
		case verb == ipvs.AddDest && errors.Is(err, unix.EEXIST):
			k.batch.addOp(i, c.family, &ops[i], ipvs.SetDest)
		case verb == ipvs.DeleteServer && errors.Is(err, unix.ESRCH), verb == ipvs.DeleteDest && errors.Is(err, unix.ENOENT):
			delete(errs, i)
		}
	}
	if len(k.batch.steps) == 0 {
		return errs
	}
	for _, i := range k.batch.steps {
		delete(errs, i)
	}
	again, err := c.steps.do(&k.batch)
	if err != nil {
		return all(len(ops), errors.Join(err, k.disconnect()))
	}
	for i, err := range again {
		errs[i] = err
	}
	return errs
}

// applyAddresses does steps about addresses, and returns the errors of those that failed.
func (k *Kernel) applyAddresses(ops []ipvs.Op) map[int]error {
	index, err := deviceIndex(slices.ContainsFunc(ops, func(o ipvs.Op) bool { return o.Verb == ipvs.AddAddress }))
	if err != nil {
		return all(len(ops), err)
	}
	if index == 0 {
		return nil // there is nothing to delete from
	}
	if k.route == nil {
		if k.route, err = openRoute(); err != nil {
			return all(len(ops), fmt.Errorf("connect to the kernel's addresses: %w", err))
		}
	}
	k.batch.reset(k.route.Seq + 1)
	for i := range ops {
		k.batch.addAddress(i, index, &ops[i])
	}
	errs, err := k.route.do(&k.batch)
	if err != nil {
		err = errors.Join(err, k.route.Close())
		k.route = nil
		return all(len(ops), err)
	}
	for i, err := range errs {
		if ops[i].Verb == ipvs.AddAddress && errors.Is(err, unix.EEXIST) || ops[i].Verb == ipvs.DeleteAddress && errors.Is(err, unix.EADDRNOTAVAIL) {
			delete(errs, i)
		}
	}
	return errs
}
