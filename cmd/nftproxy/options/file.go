package options

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	proxyconfig "k8s.io/kube-proxy/config/v1alpha1"
	"sigs.k8s.io/yaml"
)

// readFile returns the configuration in a file, with its defaults filled in. The warning tells what
// only a lenient look takes.
func readFile(name string) (c proxyconfig.KubeProxyConfiguration, warning string, err error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return c, "", fmt.Errorf("read the configuration: %w", err)
	}
	c, warning, err = decode(data)
	if err != nil {
		return c, "", fmt.Errorf("read the configuration %s: %w", name, err)
	}
	if warning != "" {
		warning = name + ": " + warning
	}
	return c, warning, nil
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
