package controller

import (
	"bytes"
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
	"github.com/tocsin-rules/tocsin/operator/credentials"
	"github.com/tocsin-rules/tocsin/operator/render"
)

// gossipKey puts the user's key, if there is one, in the place of the one that
// the operator made. The first error is the user's to mend.
func (c *operatorConfigs) gossipKey(ctx context.Context, oc *v1.OperatorConfig) (fault, err error) {
	if oc == nil || oc.RuleEvaluation.GossipKey == nil {
		return nil, nil
	}
	sel := oc.RuleEvaluation.GossipKey
	key := render.SecretKey{Kind: render.KindSecret, Namespace: c.settings.PublicNamespace, Name: sel.Name, Key: sel.Key}
	value, fault := c.secrets.get(ctx, key)
	if fault != nil {
		return fmt.Errorf("ruleEvaluation.gossipKey: %w", fault), nil
	}
	var s corev1.Secret
	if err := c.api.Get(ctx, types.NamespacedName{Namespace: c.settings.SystemNamespace, Name: credentials.SecretName}, &s); err != nil {
		return nil, fmt.Errorf("keys of rule-evaluators: %w", err)
	}
	if bytes.Equal(s.Data[credentials.GossipKey], value) {
		return nil, nil
	}
	before := s.DeepCopy()
	s.Data[credentials.GossipKey] = value
	return nil, c.client.Patch(ctx, &s, client.MergeFrom(before))
}
