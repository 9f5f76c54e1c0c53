package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"syscall"
	"time"

	"podnet.dev/internal/splice"
)

// web serves what HTTP programs ask of a proxy, until ctx is done.
func (s *Server) web(ctx context.Context) http.Handler {
	pass := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			// The URL is whole. What a server's proxy takes for forged or odd, and
			// leaves out, is the program's own here.
			r.Out.URL.RawQuery = r.In.URL.RawQuery
			for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
				if v := r.In.Header[name]; v != nil {
					r.Out.Header[name] = v
				}
			}
		},
		Transport: &http.Transport{
			DialContext: s.Dial, DisableCompression: true, MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute,
			TLSHandshakeTimeout: dialTime,
		},
		FlushInterval: -1, // streams are to be seen as they come
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() == nil {
				http.Error(w, "podnet: "+err.Error(), statusFor(err))
			}
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodConnect:
			s.connect(ctx, w, r)
		case r.URL.Scheme == "http" && r.URL.Host != "":
			pass.ServeHTTP(w, r)
		default:
			// A page in a browser gets no further than this: it cannot make the
			// browser treat us as its proxy.
			http.Error(w, "podnet: this is a proxy; set HTTP_PROXY or ALL_PROXY to it", http.StatusBadRequest)
		}
	})
}

func statusFor(err error) int {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, syscall.ETIMEDOUT) {
		return http.StatusGatewayTimeout
	}
	return http.StatusBadGateway
}

// connect makes the connection a tunnel. The request's own context ends when the
// program has said all, which is too early.
func (s *Server) connect(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	if _, _, err := net.SplitHostPort(r.Host); err != nil {
		http.Error(w, "podnet: CONNECT wants host:port", http.StatusBadRequest)
		return
	}
	conn, rest, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "podnet: "+err.Error(), http.StatusInternalServerError)
		return
	}
	program := &peeked{Conn: conn, r: rest.Reader, closed: make(chan struct{})}
	defer program.Close()
	_ = conn.SetDeadline(time.Time{})
	s.join(ctx, program, "http", r.Host, func(err error) error {
		answer := &http.Response{StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1}
		if err != nil {
			answer.StatusCode, answer.Close = statusFor(err), true
			answer.Header = http.Header{"Content-Type": {"text/plain; charset=utf-8"}}
			text := "podnet: " + err.Error() + "\n"
			answer.ContentLength, answer.Body = int64(len(text)), io.NopCloser(strings.NewReader(text))
			return answer.Write(conn)
		}
		_, failed := io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n\r\n")
		return failed
	})
}

// join dials, has the program told how that went, and carries bytes both ways until
// both have said all, or ctx is done.
func (s *Server) join(ctx context.Context, conn *peeked, kind, address string, tell func(error) error) {
	far, err := dial(ctx, s.Dial, "tcp", address)
	s.Log.Debug("proxied", "by", kind, "to", address, "err", err)
	if told := tell(err); err != nil || told != nil {
		if far != nil {
			_ = far.Close()
		}
		return
	}
	carry(ctx, conn, far)
}

// dial is Dial with a limit.
func dial(ctx context.Context, d Dial, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	return d(ctx, network, address)
}

// carry joins two connections until they have ended, or ctx is done, and closes both.
func carry(ctx context.Context, near, far net.Conn) {
	defer near.Close()
	defer far.Close()
	defer context.AfterFunc(ctx, func() {
		splice.Reset(near)
		splice.Reset(far)
	})()
	_ = splice.Join(near, far, nil, nil) // both ends have been told
}
