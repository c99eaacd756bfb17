package main

import (
	"errors"
	"fmt"

	"go.uber.org/zap"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/nftproxy/nftproxy/proxier/plan"
	"github.com/nftproxy/nftproxy/watch"
	"github.com/nftproxy/nftproxy/watch/dir"
	"github.com/nftproxy/nftproxy/watch/kube"
	"github.com/nftproxy/nftproxy/watch/node"
)

// checkSources returns an error if the settings name two places to take the objects from: whose
// Service would count, and what were to go when one of them does not answer?
func checkSources(manifests, kubeconfig, master string) error {
	switch {
	case manifests != "" && kubeconfig != "":
		return errors.New("--manifests and a kubeconfig exclude each other: the objects come from one place")
	case manifests != "" && master != "":
		return errors.New("--manifests and --master exclude each other: the objects come from one place")
	}
	return nil
}

// sources returns what the daemon follows, and the client of the API server; nil where manifests
// stand for a cluster.
func sources(cfg config, log *zap.Logger) ([]watch.Source, kubernetes.Interface, error) {
	here := node.New(log)
	if cfg.Manifests != "" {
		return []watch.Source{dir.New(cfg.Manifests, log), here}, nil, nil
	}
	c, err := clientConfig(cfg)
	if err != nil {
		return nil, nil, err
	}
	client, err := kubernetes.NewForConfig(c)
	if err != nil {
		return nil, nil, fmt.Errorf("make a client for %s: %w", c.Host, err)
	}
	log.Info("following Kubernetes", zap.String("server", c.Host), zap.String("contentType", c.ContentType))
	cluster := kube.New(kube.Config{
		Client: client, NodeName: cfg.NodeName, Log: log, NeedPodCIDRs: cfg.Plan.DetectLocal.Mode == plan.NodeCIDR,
	})
	return []watch.Source{cluster, here}, client, nil
}

// clientConfig returns how to reach the API server: as the kubeconfig and --master say or, without
// either, as a pod of the cluster is told.
func clientConfig(cfg config) (*rest.Config, error) {
	connection := &cfg.Options.Config.ClientConnection
	var c *rest.Config
	var err error
	if connection.Kubeconfig == "" && cfg.Options.Master == "" {
		if c, err = rest.InClusterConfig(); err != nil {
			return nil, fmt.Errorf("neither --manifests, a kubeconfig nor --master is given, and this is no pod of a cluster: %w", err)
		}
	} else {
		c, err = clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
			&clientcmd.ClientConfigLoadingRules{ExplicitPath: connection.Kubeconfig},
			&clientcmd.ConfigOverrides{ClusterInfo: clientcmdapi.Cluster{Server: cfg.Options.Master}}).ClientConfig()
		if err != nil {
			return nil, fmt.Errorf("read the kubeconfig %q: %w", connection.Kubeconfig, err)
		}
	}
	c.ContentType, c.AcceptContentTypes = connection.ContentType, connection.AcceptContentTypes
	if c.AcceptContentTypes == "" {
		c.AcceptContentTypes = c.ContentType
		if c.ContentType != "application/json" {
			c.AcceptContentTypes += ",application/json"
		}
	}
	c.QPS, c.Burst = connection.QPS, int(connection.Burst)
	c.UserAgent = "nftproxy/" + thisBuild().Version
	return c, nil
}
