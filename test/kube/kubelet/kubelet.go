// Package kubelet runs the programs of simulated pods as processes of this
// machine, for tests: with the arguments, the environment, the volumes, the
// user and the service account's token that the pods say, in a root directory
// that holds nothing but the program and the volumes, as an image made from
// scratch does.
//
// The processes share the network of the machine: what a pod listens on at all
// addresses is opened at the pod's own, which is one of the loopback interface.
// Names of Services are in /etc/hosts. Probes are not made, limits of memory and
// CPU not enforced, and containers have no /proc.
//
// It needs to be root, or that the system has user namespaces. A Kubelet is
// used by one goroutine.
package kubelet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	listersv1 "k8s.io/client-go/listers/core/v1"
)

// syncInterval is the time between two looks at pods and volumes.
const syncInterval = 200 * time.Millisecond

// Config says what a Kubelet runs.
type Config struct {
	// Client has all rights.
	Client kubernetes.Interface
	// APIServer is "host:port", as pods are told.
	APIServer string
	// Namespace is the one whose pods run; those of others stay simulated.
	Namespace string
	// Programs are the static binaries of images, by the last part of the
	// images' names, without tags.
	Programs map[string]string
}

// Kubelet runs pods. Make one with Start.
type Kubelet struct {
	t   testing.TB
	cfg Config
	dir string

	pods     listersv1.PodNamespaceLister
	maps     listersv1.ConfigMapNamespaceLister
	secrets  listersv1.SecretNamespaceLister
	services listersv1.ServiceLister
	allPods  listersv1.PodLister

	mu      sync.Mutex
	running map[string]*container // by the pod's name
	faults  map[string]error      // why pods do not run, by name
}

// Start runs all pods of the namespace that are there and that come, until the
// test ends.
func Start(t testing.TB, cfg Config) *Kubelet {
	t.Helper()
	k := &Kubelet{t: t, cfg: cfg, dir: t.TempDir(), running: map[string]*container{}, faults: map[string]error{}}
	ctx, cancel := context.WithCancel(context.Background())
	own := informers.NewSharedInformerFactoryWithOptions(cfg.Client, 0, informers.WithNamespace(cfg.Namespace))
	all := informers.NewSharedInformerFactory(cfg.Client, 0)
	k.pods, k.maps = own.Core().V1().Pods().Lister().Pods(cfg.Namespace), own.Core().V1().ConfigMaps().Lister().ConfigMaps(cfg.Namespace)
	k.secrets = own.Core().V1().Secrets().Lister().Secrets(cfg.Namespace)
	k.services, k.allPods = all.Core().V1().Services().Lister(), all.Core().V1().Pods().Lister()
	for _, f := range []informers.SharedInformerFactory{own, all} {
		f.Start(ctx.Done())
		f.WaitForCacheSync(ctx.Done())
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		k.run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		k.killAll()
	})
	return k
}

func (k *Kubelet) run(ctx context.Context) {
	ticker := time.NewTicker(syncInterval)
	defer ticker.Stop()
	for {
		k.sync(ctx)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// sync makes what runs equal to what pods there are.
func (k *Kubelet) sync(ctx context.Context) {
	pods, err := k.pods.List(labels.Everything())
	if err != nil {
		return
	}
	wanted := map[string]*corev1.Pod{}
	for _, p := range pods {
		if p.Status.Phase == corev1.PodRunning && p.Status.PodIP != "" && p.DeletionTimestamp == nil {
			wanted[p.Name] = p
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for name, c := range k.running {
		if p := wanted[name]; p == nil || p.UID != c.pod.UID {
			c.stop()
			delete(k.running, name)
		}
	}
	hosts := k.hosts()
	for name, p := range wanted {
		k.faults[name] = k.ensure(ctx, p, hosts)
	}
}

// ensure starts what does not run, and brings files up to date.
func (k *Kubelet) ensure(ctx context.Context, p *corev1.Pod, hosts []byte) error {
	c := k.running[p.Name]
	if c == nil {
		binary := k.cfg.Programs[program(p.Spec.Containers[0].Image)]
		if binary == "" {
			return fmt.Errorf("there is no program for image %s", p.Spec.Containers[0].Image)
		}
		c = &container{pod: p, binary: binary, root: filepath.Join(k.dir, p.Name), log: filepath.Join(k.dir, p.Name+".log")}
		if err := c.prepare(); err != nil {
			return err
		}
	}
	if err := writeFile(filepath.Join(c.root, "etc/hosts"), hosts); err != nil {
		return err
	}
	if err := k.mount(ctx, c); err != nil {
		return err
	}
	if k.running[p.Name] == nil {
		env, err := k.environment(p)
		if err != nil {
			return err
		}
		c.env = env
		k.running[p.Name] = c
	}
	return c.keepRunning()
}

// program is the last part of an image's name.
func program(image string) string {
	name, _, _ := strings.Cut(image[strings.LastIndex(image, "/")+1:], ":")
	return name
}

// hosts are the names of headless Services with the addresses behind them; what
// has an address of its own in Kubernetes has those of its pods here.
func (k *Kubelet) hosts() []byte {
	services, err := k.services.List(labels.Everything())
	if err != nil {
		return nil
	}
	lines := []string{"127.0.0.1 localhost"}
	for _, s := range services {
		if len(s.Spec.Selector) == 0 {
			continue
		}
		pods, err := k.allPods.Pods(s.Namespace).List(labels.SelectorFromSet(s.Spec.Selector))
		if err != nil {
			continue
		}
		for _, p := range pods {
			if ip := p.Status.PodIP; ip != "" && p.DeletionTimestamp == nil {
				name := s.Name + "." + s.Namespace
				lines = append(lines, fmt.Sprintf("%s %s %s.svc %s.svc.cluster.local", ip, name, name, name))
			}
		}
	}
	slices.Sort(lines)
	return []byte(strings.Join(lines, "\n") + "\n")
}

// logs are the ends of all logs, with the reasons why pods do not run.
func (k *Kubelet) logs() string {
	var b strings.Builder
	for name, c := range k.running {
		fmt.Fprintf(&b, "== %s (%d restarts)\n%s\n", name, c.restarts, tail(c.log))
	}
	for name, err := range k.faults {
		if err != nil {
			fmt.Fprintf(&b, "== %s: %s\n", name, err)
		}
	}
	return b.String()
}

func tail(log string) string {
	const most = 6 << 10
	text, err := os.ReadFile(log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-most):])
}

// Restarts is how often containers have ended by themselves, in all pods.
func (k *Kubelet) Restarts() (n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.running {
		n += c.restarts
	}
	return n
}

// killAll ends everything at once: members would hand over to each other for
// as long as they may.
func (k *Kubelet) killAll() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.running {
		c.kill()
	}
	if k.t.Failed() {
		k.t.Log(k.logs())
	}
}
