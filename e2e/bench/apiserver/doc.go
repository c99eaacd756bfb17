// Package apiserver is a small API server that serves what a service proxy asks for: lists and watches of
// Services, EndpointSlices, one Node and ServiceCIDRs, in protobuf or JSON, as streams of the initial state
// (sendInitialEvents) or as lists, from a resource version on.
//
// It stands in for kube-apiserver in the benchmark, where 50,000 Services would take hours to create. It
// keeps the objects encoded, so that it takes little of the CPU that the measured program needs. It takes
// one program's word for what the objects are (see [Serve]) and enforces nothing.
package apiserver
