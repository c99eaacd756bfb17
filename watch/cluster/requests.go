package cluster

import (
	"context"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/tools/metrics"
)

// Requests are the series of the requests to the API server, as all parts of Kubernetes have them
// (k8s.io/component-base/metrics/prometheus/restclient).
type Requests struct {
	results, retries                     *prometheus.CounterVec
	latency, rateLimiter, sent, received *prometheus.HistogramVec
}

// NewRequests returns the series, registered.
func NewRequests(r prometheus.Registerer) *Requests {
	seconds := []float64{0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60}
	bytes := []float64{64, 256, 512, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rest_client_" + name, Help: help}, labels)
		r.MustRegister(c)
		return c
	}
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "rest_client_" + name, Help: help, Buckets: buckets}, []string{"verb", "host"})
		r.MustRegister(h)
		return h
	}
	return &Requests{
		results:     counters("requests_total", "Number of HTTP requests, partitioned by status code, method, and host.", "code", "method", "host"),
		retries:     counters("request_retries_total", "Number of request retries, partitioned by status code, verb, and host.", "code", "verb", "host"),
		latency:     histogram("request_duration_seconds", "Request latency in seconds. Broken down by verb, and host.", seconds),
		rateLimiter: histogram("rate_limiter_duration_seconds", "Client side rate limiter latency in seconds. Broken down by verb, and host.", seconds),
		sent:        histogram("request_size_bytes", "Request size in bytes. Broken down by verb and host.", bytes),
		received:    histogram("response_size_bytes", "Response size in bytes. Broken down by verb and host.", bytes),
	}
}

// Count has client-go count its requests here, those of the whole process. Only the first call in a
// process has an effect, and it comes before the first client is made.
func (r *Requests) Count() {
	metrics.Register(metrics.RegisterOpts{
		RequestResult:      result{r.results},
		RequestRetry:       retry{r.retries},
		RequestLatency:     latency{r.latency},
		RateLimiterLatency: latency{r.rateLimiter},
		RequestSize:        size{r.sent},
		ResponseSize:       size{r.received},
	})
}

// result counts answers.
type result struct{ to *prometheus.CounterVec }

// Increment counts one answer.
func (c result) Increment(_ context.Context, code, method, host string) {
	c.to.WithLabelValues(code, method, host).Inc()
}

// retry counts requests that were sent again.
type retry struct{ to *prometheus.CounterVec }

// IncrementRetry counts one request that was sent again.
func (c retry) IncrementRetry(_ context.Context, code, method, host string) {
	c.to.WithLabelValues(code, method, host).Inc()
}

// latency measures how long something took.
type latency struct{ to *prometheus.HistogramVec }

// Observe notes how long one request took.
func (h latency) Observe(_ context.Context, verb string, u url.URL, took time.Duration) {
	h.to.WithLabelValues(verb, u.Host).Observe(took.Seconds())
}

// size measures how much was sent.
type size struct{ to *prometheus.HistogramVec }

// Observe notes the size of one message.
func (h size) Observe(_ context.Context, verb, host string, size float64) {
	h.to.WithLabelValues(verb, host).Observe(size)
}
