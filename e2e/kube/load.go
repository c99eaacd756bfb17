package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// An Entry is an object as it is in the store.
type Entry struct {
	// Key is its path below /registry/.
	Key string
	// Value is the object in JSON.
	Value []byte
}

// Load writes objects into the store, past the API server, which takes minutes to allocate the addresses
// of many Services. The API server is not running yet.
func (c *Cluster) Load(ctx context.Context, entries []Entry) error {
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (conn net.Conn, err error) {
			err = c.ns.Do(func() error {
				conn, err = net.Dial("tcp", "127.0.0.1:2379")
				return err
			})
			return conn, err
		},
	}}
	defer client.CloseIdleConnections()
	if err := c.etcd.wait("the store answers", func() error { return c.put(ctx, client, nil) }); err != nil {
		return err
	}
	// A request may have 1.5 MB and 128 entries.
	for some := range slices.Chunk(entries, 50) {
		if err := c.put(ctx, client, some); err != nil {
			return err
		}
	}
	return nil
}

// put writes entries into the store as one transaction, by the JSON gateway of etcd.
func (c *Cluster) put(ctx context.Context, client *http.Client, entries []Entry) error {
	type put struct {
		Key   []byte `json:"key"` // JSON has base64 for both
		Value []byte `json:"value"`
	}
	type op struct {
		RequestPut put `json:"requestPut"`
	}
	txn := struct {
		Success []op `json:"success"`
	}{Success: []op{}}
	for _, e := range entries {
		txn.Success = append(txn.Success, op{put{[]byte("/registry/" + e.Key), e.Value}})
	}
	body, err := json.Marshal(txn)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://127.0.0.1:2379/v3/kv/txn", bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("write %d objects into the store: %s", len(entries), resp.Status)
	}
	return nil
}

// Copies returns n copies of a Service and its EndpointSlice that an API server returned as JSON, with
// names, cluster IPs and endpoints of their own, and the allocations of their cluster IPs. The originals
// are called "template", have the cluster IP templateIP, and endpoints 10.0.2.1 and following.
func Copies(service, slice []byte, n, endpoints int) []Entry {
	var entries []Entry
	uid := func(kind, i int) string { return fmt.Sprintf("%08x-0000-4000-8000-%012x", kind, i) }
	now := time.Now().UTC().Format(time.RFC3339)
	for i := range n {
		name, ip := fmt.Sprintf("service-%05d", i), fmt.Sprintf("10.96.%d.%d", 4+i/250, 1+i%250)
		replace := []string{templateIP, ip, templateUID(service), uid(1, i), templateUID(slice), uid(2, i), "template", name}
		// The longer addresses first, since others are their beginnings.
		for k := endpoints; k > 0; k-- {
			number := i*endpoints + k
			replace = append(replace, fmt.Sprintf("10.0.2.%d", k), fmt.Sprintf("10.%d.%d.%d", 128+number>>16, number>>8&255, number&255))
		}
		r := strings.NewReplacer(replace...)
		entries = append(entries,
			Entry{"services/specs/default/" + name, []byte(r.Replace(string(service)))},
			Entry{"endpointslices/default/" + name, []byte(r.Replace(string(slice)))},
			Entry{"ipaddresses/" + ip, fmt.Appendf(nil, `{"kind":"IPAddress","apiVersion":"networking.k8s.io/v1","metadata":{"name":%q,"uid":%q,"creationTimestamp":%q,`+
				`"labels":{"ipaddress.kubernetes.io/ip-family":"IPv4","ipaddress.kubernetes.io/managed-by":"ipallocator.k8s.io"}},`+
				`"spec":{"parentRef":{"resource":"services","namespace":"default","name":%q}}}`, ip, uid(3, i), now, name)},
		)
	}
	return entries
}

// templateIP is the cluster IP of the Service that is copied.
const templateIP = "10.96.200.200"

// templateUID returns the unique identifier of an object.
func templateUID(text []byte) string {
	var o struct {
		Metadata struct {
			UID string `json:"uid"`
		} `json:"metadata"`
	}
	_ = json.Unmarshal(text, &o) // an object without one is found out by the API server
	return o.Metadata.UID
}
