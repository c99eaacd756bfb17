package options

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	proxyconfig "k8s.io/kube-proxy/config/v1alpha1"
	"sigs.k8s.io/yaml"
)

// readFile returns the configuration in the file, with its defaults filled in. What only a lenient
// look takes is a warning.
func (o *Options) readFile() (proxyconfig.KubeProxyConfiguration, error) {
	var c proxyconfig.KubeProxyConfiguration
	data, err := os.ReadFile(o.ConfigFile)
	if err != nil {
		return c, fmt.Errorf("read the configuration: %w", err)
	}
	o.content = data
	c, warning, err := decode(data)
	if err != nil {
		return c, fmt.Errorf("read the configuration %s: %w", o.ConfigFile, err)
	}
	if warning != "" {
		o.Warnings = append(o.Warnings, o.ConfigFile+": "+warning)
	}
	return c, nil
}

// Watch waits until the file holds something else than was read, and returns an error then: the
// daemon is to end, and to be started again with what the file says now. Without a file, and once
// ctx ends, it returns nil.
//
// It looks at the directory, since a ConfigMap volume changes a symbolic link there and not the file,
// and at the directory of what the file is a link to.
func (o *Options) Watch(ctx context.Context) error {
	if o.ConfigFile == "" {
		return nil
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the configuration: %w", err)
	}
	defer w.Close()
	target, err := filepath.EvalSymlinks(o.ConfigFile)
	if err != nil {
		return fmt.Errorf("watch the configuration: %w", err)
	}
	for _, dir := range []string{filepath.Dir(o.ConfigFile), filepath.Dir(target)} {
		if err := w.Add(dir); err != nil {
			return fmt.Errorf("watch the configuration in %s: %w", dir, err)
		}
	}
	for {
		// A file that is away for a moment, while it is replaced, has not changed yet.
		if data, err := os.ReadFile(o.ConfigFile); err == nil && !bytes.Equal(data, o.content) {
			return fmt.Errorf("the configuration %s changed; ending, to be started again with it", o.ConfigFile)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-w.Events:
		case <-w.Errors:
		}
	}
}

// decode returns the configuration in YAML or JSON, with its defaults filled in.
func decode(data []byte) (c proxyconfig.KubeProxyConfiguration, warning string, err error) {
	err = decodeWith(serializer.EnableStrict, data, &c)
	if runtime.IsStrictDecodingError(err) {
		// kube-proxy takes unknown and repeated fields, so there are files that have some.
		warning = fmt.Sprintf("taken, although: %v", err)
		c = proxyconfig.KubeProxyConfiguration{}
		err = decodeWith(serializer.DisableStrict, data, &c)
	}
	if err != nil {
		return c, "", err
	}
	setDefaults(&c)
	return c, warning, nil
}

// decodeWith decodes YAML or JSON, strictly or not.
func decodeWith(how serializer.CodecFactoryOptionsMutator, data []byte, into *proxyconfig.KubeProxyConfiguration) error {
	if len(bytes.TrimSpace(data)) == 0 {
		return errors.New("it is empty")
	}
	scheme := runtime.NewScheme()
	if err := proxyconfig.AddToScheme(scheme); err != nil {
		return fmt.Errorf("make a decoder: %w", err)
	}
	object, kind, err := serializer.NewCodecFactory(scheme, how).UniversalDeserializer().Decode(data, nil, nil)
	if err != nil {
		return err
	}
	c, ok := object.(*proxyconfig.KubeProxyConfiguration)
	if !ok {
		return fmt.Errorf("it holds a %s; want a KubeProxyConfiguration", describe(kind))
	}
	*into = *c
	return nil
}

// describe returns a kind as the file writes it.
func describe(k *schema.GroupVersionKind) string {
	version, kind := k.ToAPIVersionAndKind()
	return version + " " + kind
}

// Encode returns the configuration as YAML, which --config takes.
func (o *Options) Encode() ([]byte, error) {
	b, err := yaml.Marshal(&o.Config)
	if err != nil {
		return nil, fmt.Errorf("write the configuration as YAML: %w", err)
	}
	return b, nil
}
