// Package kubernetes records decisions of the HPA controller of the pinned Kubernetes release.
//
// The controller runs unchanged on a fake clock. Each scenario has random bounds, behavior and metrics, and each of its syncs gets random
// values, a status that lags behind, and changes of spec.replicas by others. `make hpa-scenarios` writes the inputs and the answers to
// core/src/foresight/scenarios/hpa.jsonl; the tests of `foresight::hpa` compare every sync.
package kubernetes

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	v1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/scale"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/podautoscaler"
	"k8s.io/kubernetes/pkg/controller/podautoscaler/metrics"
)

const (
	seed          = 1
	scenarioCount = 200
	syncsEach     = 300
	syncPeriod    = 15 * time.Second
	downWindow    = 300 * time.Second // --horizontal-pod-autoscaler-downscale-stabilization
	tolerance     = 0.1               // --horizontal-pod-autoscaler-tolerance
	namespace     = "chat"
	name          = "llama"
)

// rules is one direction of an HPA's behavior; Tolerance is the float that the controller compares with.
type rules struct {
	Window    *int32   `json:"stabilizationWindowSeconds,omitempty"`
	Select    string   `json:"selectPolicy"`
	Policies  []policy `json:"policies"`
	Tolerance *float64 `json:"tolerance,omitempty"`
	quantity  *resource.Quantity
}

type policy struct {
	Type   string `json:"type"`
	Value  int32  `json:"value"`
	Period int32  `json:"periodSeconds"`
}

type metric struct {
	Type   string `json:"type"`
	Target int64  `json:"target"` // in thousandths
}

// syncRecord is one sync: time in milliseconds, replicas of spec and status before it, ready pods (nil: no pods), one value per metric
// in thousandths (nil: error), and spec.replicas after it.
type syncRecord struct {
	at           int64
	spec, status int32
	ready        *int32
	values       []*int64
	answer       int32
}

func (s syncRecord) MarshalJSON() ([]byte, error) {
	return json.Marshal([]any{s.at, s.spec, s.status, s.ready, s.values, s.answer})
}

type scenario struct {
	Min       int32        `json:"min"`
	Max       int32        `json:"max"`
	ScaleUp   rules        `json:"scaleUp"`
	ScaleDown rules        `json:"scaleDown"`
	Metrics   []metric     `json:"metrics"`
	Syncs     []syncRecord `json:"syncs"`
}

// world plays the API server and the metrics adapter for one controller.
type world struct {
	scenario
	random  *rand.Rand
	started time.Time
	pods    cache.Indexer
	spec    int32
	lag     time.Duration
	changes []change // of spec, oldest first
	need    float64  // replicas that the load requires
	slow    bool     // queries take time
	events  bool     // others change spec.replicas
}

type change struct {
	at   time.Time
	spec int32
}

func pick[T any](random *rand.Rand, from ...T) T { return from[random.Intn(len(from))] }

func randomRules(random *rand.Rand, up bool) rules {
	r := rules{Select: pick(random, "Max", "Max", "Max", "Max", "Max", "Max", "Min", "Min", "Min", "Disabled")}
	if up || random.Intn(4) > 0 {
		window := pick[int32](random, 0, 0, 0, 0, 15, 30, 60, 60, 120, 300, 900, 3600)
		r.Window = &window
	}
	for range 1 + random.Intn(3) {
		value := int32(1 + random.Intn(8))
		kind := pick(random, "Pods", "Percent")
		if kind == "Percent" {
			value = pick[int32](random, 1, 10, 25, 33, 50, 100, 100, 150, 900)
		}
		r.Policies = append(r.Policies, policy{kind, value, pick[int32](random, 1, 15, 15, 30, 45, 60, 60, 90, 120, 300, 900)})
	}
	if random.Intn(3) == 0 {
		r.quantity = resource.NewMilliQuantity(pick[int64](random, 0, 10, 50, 200, 333), resource.DecimalSI)
		value := r.quantity.AsApproximateFloat64()
		r.Tolerance = &value
	}
	return r
}

// shipped returns the operator's built-in behavior.
func shipped() (rules, rules) {
	zero, ten := int32(0), int32(600)
	return rules{Window: &zero, Select: "Max", Policies: []policy{{"Pods", 2, 60}, {"Percent", 100, 60}}},
		rules{Window: &ten, Select: "Max", Policies: []policy{{"Pods", 1, 120}}}
}

func newWorld(number int) *world {
	random := rand.New(rand.NewSource(seed + int64(number)))
	w := &world{random: random, lag: time.Duration(random.Intn(41)) * time.Second, slow: number%3 == 1, events: number%4 == 2}
	w.Min = pick[int32](random, 1, 1, 1, 2, 5)
	w.Max = w.Min + pick[int32](random, 0, 5, 10, 20, 50, 100)
	w.ScaleUp, w.ScaleDown = randomRules(random, true), randomRules(random, false)
	if number%6 == 0 {
		w.ScaleUp, w.ScaleDown = shipped()
	}
	for range pick(random, 1, 1, 1, 1, 2, 2, 3) {
		w.Metrics = append(w.Metrics, metric{pick(random, "AverageValue", "AverageValue", "AverageValue", "Value"), pick[int64](random, 500, 1000, 8000, 10000, 333, 12345)})
	}
	w.spec = pick(random, w.Min, w.Min, 0, w.Max, w.Max+7, w.Min-1)
	w.need = float64(w.Min)
	return w
}

// begin prepares the next sync: the replicas, and the pods that are ready.
func (w *world) begin() {
	now := time.Now()
	if len(w.Syncs) == 0 {
		w.started = now
	} else if w.events && w.random.Intn(12) == 0 {
		w.spec = pick(w.random, 0, 1, w.Min, w.spec+2, w.Max+3)
	} else if w.spec == 0 && w.random.Intn(3) == 0 {
		w.spec = 1
	}
	w.record(now)
	switch w.random.Intn(8) {
	case 0:
		w.need = 0
	case 1:
		w.need = w.random.Float64() * float64(w.Max) * 1.4
	case 2:
		w.need = float64(w.spec) * pick(w.random, 1, 1.1, 0.9, 1.05, 0.95, 1.2, 0.8)
	default:
		w.need *= 0.8 + 0.45*w.random.Float64()
	}
	next := syncRecord{spec: w.spec, answer: w.spec, at: now.Sub(w.started).Milliseconds()}
	for _, change := range w.changes {
		if now.Sub(change.at) >= w.lag {
			next.status = change.spec
		}
	}
	w.ready(&next)
	w.Syncs = append(w.Syncs, next)
}

// record remembers a change of spec.replicas, for the status that follows.
func (w *world) record(now time.Time) {
	if len(w.changes) == 0 || w.changes[len(w.changes)-1].spec != w.spec {
		w.changes = append(w.changes, change{now, w.spec})
	}
}

func (w *world) ready(next *syncRecord) {
	var pods []any
	for number := range max(0, next.status) {
		pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprint(name, "-", number), Labels: map[string]string{"app": name}}}
		if w.random.Intn(5) > 0 {
			pod.Status = v1.PodStatus{Phase: v1.PodRunning, Conditions: []v1.PodCondition{{Type: v1.PodReady, Status: v1.ConditionTrue}}}
		}
		if next.ready == nil {
			next.ready = new(int32)
		}
		if pod.Status.Phase == v1.PodRunning {
			*next.ready++
		}
		pods = append(pods, pod)
	}
	if err := w.pods.Replace(pods, ""); err != nil {
		panic(err)
	}
}

func (w *world) last() *syncRecord { return &w.Syncs[len(w.Syncs)-1] }

// GetExternalMetric answers for the metric of this name, which is its number.
func (w *world) GetExternalMetric(metricName, _ string, _ labels.Selector) ([]int64, time.Time, error) {
	if w.slow && len(w.Syncs) > 1 {
		time.Sleep(time.Duration(w.random.Intn(900)) * time.Millisecond)
	}
	sync := w.last()
	sync.at = time.Since(w.started).Milliseconds()
	if w.random.Intn(15) == 0 {
		sync.values = append(sync.values, nil)
		return nil, time.Time{}, errors.New("no metrics returned from external metrics API")
	}
	var number int
	fmt.Sscan(metricName, &number)
	value := w.need * float64(w.Metrics[number].Target)
	if w.Metrics[number].Type == "Value" && sync.spec > 0 {
		value /= float64(sync.spec)
	}
	rounded := int64(value * pick(w.random, 1, 1, 1, 0.9, 0.5))
	sync.values = append(sync.values, &rounded)
	return []int64{rounded}, time.Now(), nil
}

func (w *world) GetResourceMetric(context.Context, v1.ResourceName, string, labels.Selector, string) (metrics.PodMetricsInfo, time.Time, error) {
	return nil, time.Time{}, errors.New("unused")
}

func (w *world) GetRawMetric(string, string, labels.Selector, labels.Selector) (metrics.PodMetricsInfo, time.Time, error) {
	return nil, time.Time{}, errors.New("unused")
}

func (w *world) GetObjectMetric(string, string, *autoscalingv2.CrossVersionObjectReference, labels.Selector) (int64, time.Time, error) {
	return 0, time.Time{}, errors.New("unused")
}

func (w *world) Scales(string) scale.ScaleInterface { return w }

// Get is the first call of each sync.
func (w *world) Get(context.Context, schema.GroupResource, string, metav1.GetOptions) (*autoscalingv1.Scale, error) {
	w.begin()
	sync := w.last()
	return &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       autoscalingv1.ScaleSpec{Replicas: sync.spec},
		Status:     autoscalingv1.ScaleStatus{Replicas: sync.status, Selector: "app=" + name},
	}, nil
}

func (w *world) Update(_ context.Context, _ schema.GroupResource, updated *autoscalingv1.Scale, _ metav1.UpdateOptions) (*autoscalingv1.Scale, error) {
	w.spec = updated.Spec.Replicas
	w.last().answer = w.spec
	w.record(time.Now())
	return updated, nil
}

func (w *world) Patch(context.Context, schema.GroupVersionResource, string, types.PatchType, []byte, metav1.PatchOptions) (*autoscalingv1.Scale, error) {
	return nil, errors.New("unused")
}

func (r rules) hpa() *autoscalingv2.HPAScalingRules {
	selected := autoscalingv2.ScalingPolicySelect(r.Select)
	result := &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: r.Window, SelectPolicy: &selected, Tolerance: r.quantity}
	for _, p := range r.Policies {
		result.Policies = append(result.Policies, autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.HPAScalingPolicyType(p.Type), Value: p.Value, PeriodSeconds: p.Period})
	}
	return result
}

func (w *world) hpa() *autoscalingv2.HorizontalPodAutoscaler {
	hpa := &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: name},
			MinReplicas:    &w.Min,
			MaxReplicas:    w.Max,
			Behavior:       &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: w.ScaleUp.hpa(), ScaleDown: w.ScaleDown.hpa()},
		},
	}
	for number, m := range w.Metrics {
		target, quantity := autoscalingv2.MetricTarget{Type: autoscalingv2.MetricTargetType(m.Type)}, resource.NewMilliQuantity(m.Target, resource.DecimalSI)
		if m.Type == "Value" {
			target.Value = quantity
		} else {
			target.AverageValue = quantity
		}
		hpa.Spec.Metrics = append(hpa.Spec.Metrics, autoscalingv2.MetricSpec{
			Type:     autoscalingv2.ExternalMetricSourceType,
			External: &autoscalingv2.ExternalMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: fmt.Sprint(number)}, Target: target},
		})
	}
	return hpa
}

// run plays the scenario inside a bubble with a fake clock.
func (w *world) run(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	client := fake.NewClientset(w.hpa())
	client.PrependReactor("update", "horizontalpodautoscalers", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, w.hpa(), nil
	})
	factory := informers.NewSharedInformerFactory(client, 0)
	mapper := apimeta.NewDefaultRESTMapper([]schema.GroupVersion{{Group: "apps", Version: "v1"}})
	mapper.Add(schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}, apimeta.RESTScopeNamespace)
	pods := factory.Core().V1().Pods()
	w.pods = pods.Informer().GetIndexer()
	controller := podautoscaler.NewHorizontalController(
		ctx, client.CoreV1(), w, client.AutoscalingV2(), mapper, w, factory.Autoscaling().V2().HorizontalPodAutoscalers(), pods,
		syncPeriod, downWindow, tolerance, time.Minute, time.Second)
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	go controller.Run(ctx, 1)
	for len(w.Syncs) <= syncsEach {
		time.Sleep(time.Second)
		synctest.Wait()
	}
	cancel()
	factory.Shutdown()
}

// inBubble runs the scenario; the controller's event broadcaster outlives the bubble, which synctest reports by a panic.
func inBubble(t *testing.T, w *world) {
	defer func() {
		if reason := recover(); reason != nil && !strings.Contains(fmt.Sprint(reason), "blocked goroutines remain") {
			panic(reason)
		}
	}()
	synctest.Test(t, w.run)
}

func TestRecordScenarios(t *testing.T) {
	path := os.Getenv("HPA_SCENARIOS")
	if path == "" {
		t.Skip("HPA_SCENARIOS names no file")
	}
	klog.LogToStderr(false)
	klog.SetOutput(io.Discard)
	// The default handler limits its rate by the wall clock, which is years away from the bubble's.
	utilruntime.ErrorHandlers = nil
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	out := bufio.NewWriter(file)
	for number := range scenarioCount {
		w := newWorld(number)
		inBubble(t, w)
		w.Syncs = w.Syncs[:syncsEach]
		line, err := json.Marshal(w.scenario)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(out, "%s\n", line)
	}
	if err := out.Flush(); err != nil {
		t.Fatal(err)
	}
}
