package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"

	"sigs.k8s.io/yaml"
)

// A Client asks the API server over HTTP, with JSON and as an administrator.
type Client struct {
	http *http.Client
}

// A StatusError is an answer of the API server that is no success.
type StatusError struct {
	Code int
	Text string
}

// Error returns the answer.
func (e *StatusError) Error() string { return fmt.Sprintf("HTTP status %d: %s", e.Code, e.Text) }

// Do sends one request to a path of the API server. The body has the content type given; the answer is
// decoded into out unless that is nil.
func (c *Client) Do(ctx context.Context, method, url, contentType string, body []byte, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, "https://"+apiAddress+url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+adminToken)
	req.Header.Set("Accept", "application/json")
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return fmt.Errorf("%s %s: %w", method, url, err)
	case resp.StatusCode/100 != 2:
		return fmt.Errorf("%s %s: %w", method, url, &StatusError{Code: resp.StatusCode, Text: string(text)})
	case out != nil:
		return json.Unmarshal(text, out)
	}
	return nil
}

// Get reads an object or a list.
func (c *Client) Get(ctx context.Context, url string, out any) error {
	return c.Do(ctx, http.MethodGet, url, "", nil, out)
}

// Delete deletes an object, at once.
func (c *Client) Delete(ctx context.Context, url string) error {
	return c.Do(ctx, http.MethodDelete, url+"?gracePeriodSeconds=0", "", nil, nil)
}

// Apply creates or changes the objects in a text of YAML documents, as `kubectl apply --server-side`
// does. The status of an object is written too, if the text has one.
func (c *Client) Apply(ctx context.Context, docs string) error {
	for doc := range strings.SplitSeq(docs, "\n---\n") {
		var o object
		if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
			return fmt.Errorf("apply %q: %w", doc, err)
		}
		if o.Kind == "" {
			continue
		}
		const how = "?fieldManager=e2e&force=true"
		const kind = "application/apply-patch+yaml"
		if err := c.Do(ctx, http.MethodPatch, o.url()+how, kind, []byte(doc), nil); err != nil {
			return err
		}
		if len(o.Status) > 0 {
			if err := c.Do(ctx, http.MethodPatch, o.url()+"/status"+how, kind, []byte(doc), nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// An object is what Apply reads of one.
type object struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"metadata"`
	Status json.RawMessage `json:"status"`
}

// url returns the path of the object. An object without a namespace is one of the cluster.
func (o object) url() string {
	u := path.Join("/apis", o.APIVersion)
	if !strings.Contains(o.APIVersion, "/") {
		u = path.Join("/api", o.APIVersion)
	}
	if ns := o.Metadata.Namespace; ns != "" {
		u = path.Join(u, "namespaces", ns)
	}
	return path.Join(u, strings.ToLower(o.Kind)+"s", o.Metadata.Name)
}
