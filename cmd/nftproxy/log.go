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
	encoder := zap.NewProductionEncoderConfig()
	encoder.EncodeTime = zapcore.ISO8601TimeEncoder
	encode := zapcore.NewConsoleEncoder
	if c.JSON {
		encode = zapcore.NewJSONEncoder
	}
	// logr's V(n) is zap's level -n.
	level := zapcore.Level(-min(c.Verbosity, 100))
	log := zap.New(zapcore.NewCore(encode(encoder), zapcore.Lock(zapcore.AddSync(w)), level))

	set := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(set)
	if err := set.Set("v", strconv.Itoa(c.Verbosity)); err != nil {
		return nil, fmt.Errorf("set the verbosity of klog: %w", err)
	}
	klog.SetLogger(zapr.NewLogger(log))
	return log, nil
}
