package render

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

const (
	// DefaultPartBytes is how much text a part takes before the next one is
	// begun. Every collector reads a part whenever a resource in it changes, so
	// small parts make changes cheap.
	DefaultPartBytes = 128 << 10
	// maxPartBytes is what Kubernetes takes as the data of a ConfigMap, less some
	// for the names of keys.
	maxPartBytes = 1<<20 - 16<<10
)

// PartsOptions say what the ConfigMaps look like.
type PartsOptions struct {
	Namespace string
	// Gzip stores values compressed, in binaryData under the same keys.
	Gzip bool
	// Bytes is how much text a part takes before the next one is begun; 0 means
	// DefaultPartBytes. A larger piece has a part of its own.
	Bytes int
}

// Parts are the pieces of many resources, in ConfigMaps. A piece stays in the
// part that it is in, up to twice the size at which the next part is begun; a
// new one, or one that has become too large even for that, goes to the first
// part with room. So a change of one resource changes one ConfigMap, or two in
// the rare case that its piece moves. All that Parts know is in the ConfigMaps,
// from which Recover takes up after a restart.
//
// Parts are not safe for concurrent use.
type Parts struct {
	options PartsOptions
	form    form
	// parts are by number; one without pieces is not stored, but for the first.
	parts []*part
	// at is the number of the part of each key.
	at map[string]int
}

type part struct {
	pieces map[string]Piece
	bytes  int
	// stored says whether the API server has the ConfigMap, fresh whether it has
	// it as it is here.
	stored, fresh bool
}

// NewScrapeParts returns the parts of the collectors' jobs, "collector-0" and
// so on.
func NewScrapeParts(o PartsOptions) *Parts { return newParts(o, scrapeForm{}) }

// NewRuleParts returns the parts of the rule files, "rules-generated",
// "rules-generated-1" and so on.
func NewRuleParts(o PartsOptions) *Parts { return newParts(o, ruleForm{}) }

func newParts(o PartsOptions, f form) *Parts {
	if o.Bytes == 0 {
		o.Bytes = DefaultPartBytes
	}
	return &Parts{options: o, form: f, at: map[string]int{}, parts: []*part{newPart()}}
}

func newPart() *part { return &part{pieces: map[string]Piece{}} }

// Put adds a piece, or puts it in the place of the one with its key. A piece
// that is too large for any ConfigMap is an error, and nothing changes.
func (p *Parts) Put(piece Piece) error {
	if size := p.storedSize(piece); size > maxPartBytes {
		err := fmt.Errorf("the configuration of this resource has %d bytes, more than a ConfigMap holds (%d)", size, maxPartBytes)
		if !p.options.Gzip {
			err = fmt.Errorf("%w: divide it, or set features.config.compression to gzip", err)
		}
		return err
	}
	if len(piece.Text) == 0 {
		p.Remove(piece.Key)
		return nil
	}
	i, ok := p.at[piece.Key]
	if ok && bytes.Equal(p.parts[i].pieces[piece.Key].Text, piece.Text) {
		return nil
	}
	p.Remove(piece.Key)
	if !ok || !p.fits(i, piece, 2*p.options.Bytes) {
		i = p.room(piece)
	}
	p.insert(i, piece)
	return nil
}

// room is the first part with room for the piece, a new one if there is none.
func (p *Parts) room(piece Piece) int {
	for i := range p.parts {
		if p.fits(i, piece, p.options.Bytes) {
			return i
		}
	}
	p.parts = append(p.parts, newPart())
	return len(p.parts) - 1
}

// storedSize is what the piece alone takes in a ConfigMap.
func (p *Parts) storedSize(piece Piece) int {
	if !p.options.Gzip || len(piece.Text) <= maxPartBytes {
		return len(piece.Text)
	}
	return len(zipped(piece.Text))
}

// fits says whether the part has room within the limit: an empty one has it for
// any piece.
func (p *Parts) fits(i int, piece Piece, limit int) bool {
	q := p.parts[i]
	return len(q.pieces) == 0 || q.bytes+len(piece.Text) <= min(limit, maxPartBytes)
}

func (p *Parts) insert(i int, piece Piece) {
	q := p.parts[i]
	q.pieces[piece.Key] = piece
	q.bytes += len(piece.Text)
	q.fresh = false
	p.at[piece.Key] = i
}

// Remove takes the piece with the key away, if there is one.
func (p *Parts) Remove(key string) {
	i, ok := p.at[key]
	if !ok {
		return
	}
	q := p.parts[i]
	q.bytes -= len(q.pieces[key].Text)
	q.fresh = false
	delete(q.pieces, key)
	delete(p.at, key)
}

// Keys are those of all pieces, sorted.
func (p *Parts) Keys() []string { return slices.Sorted(maps.Keys(p.at)) }

// Secrets are the keys that any piece refers to, sorted, each once.
func (p *Parts) Secrets() []SecretKey {
	var all []SecretKey
	for _, q := range p.parts {
		for _, piece := range q.pieces {
			all = append(all, piece.Secrets...)
		}
	}
	return sortedSecrets(all)
}

// Pending returns the ConfigMaps that are to be written, and the names of those
// that are to be deleted, by number. The first one always exists.
func (p *Parts) Pending() (write []*corev1.ConfigMap, remove []string) {
	for i, q := range p.parts {
		switch {
		case !p.wanted(i):
			if q.stored {
				remove = append(remove, p.form.name(i))
			}
		case !q.fresh:
			write = append(write, p.configMap(i))
		}
	}
	return write, remove
}

// Done notes that what Pending returned under the name was written, or deleted.
func (p *Parts) Done(name string) {
	if i := p.number(name); i >= 0 {
		p.parts[i].fresh, p.parts[i].stored = true, p.wanted(i)
	}
}

// Seen compares what the API server has under the name, nil for nothing, with
// what it should have. Where they differ, Pending returns it again.
func (p *Parts) Seen(name string, m *corev1.ConfigMap) {
	i := p.number(name)
	switch {
	case i < 0 && m == nil:
		return
	case i < 0:
		if i = p.form.number(name); i < 0 {
			return
		}
		p.extend(i)
	}
	q := p.parts[i]
	q.stored = m != nil
	q.fresh = m != nil && p.wanted(i) && SameConfigMap(p.configMap(i), m)
}

func (p *Parts) wanted(i int) bool { return i == 0 || len(p.parts[i].pieces) > 0 }

// extend makes sure that there is a part of the number.
func (p *Parts) extend(i int) {
	for len(p.parts) <= i {
		p.parts = append(p.parts, newPart())
	}
}

// number is that of a part that there is, -1 for any other name.
func (p *Parts) number(name string) int {
	if i := p.form.number(name); i < len(p.parts) {
		return i
	}
	return -1
}

// Recover takes over what the API server has, so that pieces keep their places
// and their last good texts: to be called once, before anything is put. What
// can't be read is left out, and reported; it is written anew.
func (p *Parts) Recover(stored []corev1.ConfigMap) error {
	var errs []error
	for _, m := range stored {
		i := p.form.number(m.Name)
		if i < 0 {
			continue
		}
		pieces, err := p.form.pieces(&m)
		if err != nil {
			errs = append(errs, fmt.Errorf("configmap %s: %w", m.Name, err))
		}
		p.extend(i)
		for _, piece := range pieces {
			if _, taken := p.at[piece.Key]; !taken {
				p.insert(i, piece)
			}
		}
	}
	for i := range stored {
		p.Seen(stored[i].Name, &stored[i])
	}
	return errors.Join(errs...)
}
