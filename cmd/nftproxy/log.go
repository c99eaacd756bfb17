package main

import (
	"flag"
	"fmt"
	"io"
	"strconv"

	"github.com/go-logr/zapr"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"k8s.io/klog/v2"
)

// A logConfig says how to log.
type logConfig struct {
	// Verbosity is that of klog; a debug message of ours has 1.
	Verbosity int
	JSON      bool
}

// newLog returns a log that writes to w, and sends there what the Kubernetes libraries log through
// klog.
func newLog(c logConfig, w io.Writer) (*zap.Logger, error) {
	log, _, err := newLeveledLog(c, w)
	return log, err
}

// newLeveledLog is newLog, and returns what sets the verbosity later, too.
func newLeveledLog(c logConfig, w io.Writer) (*zap.Logger, func(string) error, error) {
	encoder := zap.NewProductionEncoderConfig()
	encoder.EncodeTime = zapcore.ISO8601TimeEncoder
	encode := zapcore.NewConsoleEncoder
	if c.JSON {
		encode = zapcore.NewJSONEncoder
	}
	level := zap.NewAtomicLevel()
	log := zap.New(zapcore.NewCore(encode(encoder), zapcore.Lock(zapcore.AddSync(w)), level))

	flags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(flags)
	set := func(v string) error {
		verbosity, err := strconv.ParseUint(v, 10, 31)
		if err != nil {
			return fmt.Errorf("%q is no verbosity", v)
		}
		// logr's V(n) is zap's level -n.
		level.SetLevel(zapcore.Level(-min(int(verbosity), 100)))
		return flags.Set("v", v)
	}
	if err := set(strconv.Itoa(c.Verbosity)); err != nil {
		return nil, nil, fmt.Errorf("set the verbosity of klog: %w", err)
	}
	klog.SetLogger(zapr.NewLogger(log))
	return log, set, nil
}
