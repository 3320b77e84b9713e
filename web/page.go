package web

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// page is the part of a list of groups that was asked for.
type page struct {
	// limit is the number of groups, 0 for all.
	limit int
	// from is where the page begins.
	from position
}

// parsePage reads group_limit and group_next_token.
func parsePage(params url.Values) (page, error) {
	limit, token := params.Get("group_limit"), params.Get("group_next_token")
	if limit == "" && token != "" {
		return page{}, invalid("group_next_token", errors.New("group_limit needs to be present in order to paginate over the groups"))
	}
	if limit == "" {
		return page{}, nil
	}
	n, err := strconv.ParseInt(limit, 10, 32)
	if err != nil {
		return page{}, invalid("group_limit", fmt.Errorf("group_limit needs to be a valid number: %w", err))
	}
	if n <= 0 {
		return page{}, invalid("group_limit", errors.New("group_limit needs to be greater than 0"))
	}
	p := page{limit: int(n)}
	if p.from, err = parseToken(token); err != nil {
		return page{}, invalid("group_next_token", fmt.Errorf("invalid group_next_token '%s': %w", token, err))
	}
	return p, nil
}

// before tells whether a position comes before the page.
func (p page) before(at position) bool { return p.limit > 0 && at.compare(p.from) < 0 }

// full tells whether n groups are the page and one more, the next page's first.
func (p page) full(n int) bool { return p.limit > 0 && n > p.limit }

// cut returns the page out of parts that begin where it does, and the token of
// the next, empty if this is the last.
func (p page) cut(parts []Part) ([]Part, string) {
	if p.limit == 0 || len(parts) <= p.limit {
		return parts, ""
	}
	return parts[:p.limit], parts[p.limit].token()
}

// token holds the position itself, so that a page begins in the right place also
// after the group there is gone.
func (p position) token() string {
	return base64.RawURLEncoding.EncodeToString([]byte(strings.Join([]string{p.file, p.name, p.key}, "\x00")))
}

func parseToken(token string) (position, error) {
	if token == "" {
		return position{}, nil
	}
	text, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return position{}, err
	}
	fields := strings.Split(string(text), "\x00")
	if len(fields) != 3 {
		return position{}, errors.New("it is none of this cluster's")
	}
	return position{file: fields[0], name: fields[1], key: fields[2]}, nil
}
