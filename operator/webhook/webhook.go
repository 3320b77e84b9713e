// Package webhook refuses rules that can't be evaluated when they are applied:
// what the schema can't know, which is PromQL and the bounds of a tenant.
//
// The API server goes on without it, and every resource is checked again when
// it is reconciled, so that a dead operator blocks nothing and hides nothing.
// All operators answer, leading or not. They make the certificate that the API
// server trusts, share it in a Secret and replace it before it expires. The
// package changes no resource.
package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
	"github.com/tocsin-rules/tocsin/operator/render"
)

// pathPrefix is followed by the plural of a kind.
const pathPrefix = "/validate/monitoring.googleapis.com/v1/"

// Renderer returns the renderer under the current OperatorConfig.
type Renderer func(context.Context) (*render.Renderer, error)

// Register adds the checks of all kinds of rules to a server.
func Register(s webhook.Server, renderer Renderer) {
	register(s, renderer, (*render.Renderer).Rules)
	register(s, renderer, (*render.Renderer).ClusterRules)
	register(s, renderer, (*render.Renderer).GlobalRules)
}

func register[T interface {
	client.Object
	v1.Resource
}](s webhook.Server, renderer Renderer, piece func(*render.Renderer, T) (render.Piece, error)) {
	kind := reflect.TypeFor[T]().Elem()
	check := func(ctx context.Context, req admission.Request) admission.Response {
		if req.Operation != admissionv1.Create && req.Operation != admissionv1.Update {
			return admission.Allowed("")
		}
		o := reflect.New(kind).Interface().(T)
		if err := json.Unmarshal(req.Object.Raw, o); err != nil {
			return admission.Errored(http.StatusBadRequest, fmt.Errorf("decode %s: %w", kind.Name(), err))
		}
		r, err := renderer(ctx)
		if err != nil {
			return admission.Errored(http.StatusInternalServerError, err)
		}
		if _, err := piece(r, o); err != nil {
			return admission.Denied(err.Error())
		}
		return admission.Allowed("")
	}
	// The plurals of these kinds are the kinds.
	s.Register(pathPrefix+strings.ToLower(kind.Name()), &webhook.Admission{Handler: admission.HandlerFunc(check)})
}
