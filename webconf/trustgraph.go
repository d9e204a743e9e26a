package webconf

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/keyferry/keyferry/node"
)

// A trustGraph is who trusts whom as a drawing: nodes on an ellipse, or side by side when there are two,
// and a line for each pair between which there is trust. Numbers are in units of the drawing.
type trustGraph struct {
	Width, Height int
	Nodes         []graphNode
	Lines         []graphLine
	Mutual        int // lines both ways
}

// mostDrawn is how many nodes a drawing can show so that lines can be told apart; the table shows more.
const mostDrawn = 9

// Sizes of a node's box.
const (
	boxWidth  = 148
	boxHeight = 50
)

// A graphNode is a box around (X, Y).
type graphNode struct {
	Name, Short string
	Here, Owner bool
	Tone        string // of its certificate
	Word        string // what stands below the name
	X, Y        int
}

// Left and Top are the corner of the box.
func (n graphNode) Left() int { return n.X - boxWidth/2 }
func (n graphNode) Top() int  { return n.Y - boxHeight/2 }

// NameY and StateY are where the two lines of text stand.
func (n graphNode) NameY() int  { return n.Y - 4 }
func (n graphNode) StateY() int { return n.Y + 15 }

// A graphLine goes from the edge of one box to that of another. Its arrow points at a node that is trusted.
type graphLine struct {
	From, To       string
	Mutual         bool
	X1, Y1, X2, Y2 int
}

// newTrustGraph draws up to mostDrawn nodes; nil when there are more, or one alone.
func newTrustGraph(ids node.Identities, here string) *trustGraph {
	n := len(ids.Nodes)
	if n < 2 || n > mostDrawn {
		return nil
	}
	g := &trustGraph{Width: 860, Height: 190}
	rx, ry := 230.0, 0.0
	if n > 2 {
		g.Height, rx, ry = 420, 300, 150
	}
	if n > 5 {
		g.Height, rx, ry = 560, 340, 225
	}
	if n > 7 {
		g.Width, g.Height, rx, ry = 1000, 640, 410, 265
	}
	for i, id := range ids.Nodes {
		angle := 2*math.Pi*float64(i)/float64(n) - math.Pi/2
		if n == 2 {
			angle += math.Pi * 3 / 2 // the first one on the left
		}
		mark := certificateMark(id.Certificate.State)
		g.Nodes = append(g.Nodes, graphNode{Name: id.Node, Short: clipped(id.Node, 17), Here: id.Node == here, Owner: id.HoldsOwner, Tone: mark.Tone, Word: mark.Word,
			X: g.Width/2 + int(math.Round(rx*math.Cos(angle))), Y: g.Height/2 + int(math.Round(ry*math.Sin(angle)))})
	}
	g.crop()
	for i, a := range g.Nodes {
		for j, b := range g.Nodes[i+1:] {
			there, back := slices.Contains(ids.Nodes[i].Trusts, b.Name), slices.Contains(ids.Nodes[i+1+j].Trusts, a.Name)
			switch {
			case there && back:
				g.Mutual++
				g.Lines = append(g.Lines, newLine(a, b, true))
			case there:
				g.Lines = append(g.Lines, newLine(a, b, false))
			case back:
				g.Lines = append(g.Lines, newLine(b, a, false))
			}
		}
	}
	return g
}

// crop takes away what is empty above and below: the corners of a triangle leave much.
func (g *trustGraph) crop() {
	const air = 16
	top, bottom := g.Height, 0
	for _, n := range g.Nodes {
		top, bottom = min(top, n.Top()-air), max(bottom, n.Top()+boxHeight+air)
	}
	for i := range g.Nodes {
		g.Nodes[i].Y -= top
	}
	g.Height = bottom - top
}

// Text says what the drawing shows, for people who cannot see it.
func (g *trustGraph) Text() string {
	text := fmt.Sprintf("Drawing of the trust between %d nodes. ", len(g.Nodes))
	if pairs := len(g.Nodes) * (len(g.Nodes) - 1) / 2; g.Mutual == pairs {
		return text + "Every node takes packages from every other."
	}
	var both, one []string
	for _, l := range g.Lines {
		if l.Mutual {
			both = append(both, l.From+" and "+l.To)
		} else {
			one = append(one, l.From+" from "+l.To)
		}
	}
	if len(both) > 0 {
		text += "From each other take packages: " + strings.Join(both, "; ") + ". "
	}
	if len(one) > 0 {
		text += "One way only: " + strings.Join(one, "; ") + ". "
	}
	return text + "Between all other pairs there is no trust. The table below says the same."
}

func newLine(from, to graphNode, mutual bool) graphLine {
	x1, y1 := border(from, to)
	x2, y2 := border(to, from)
	return graphLine{from.Name, to.Name, mutual, x1, y1, x2, y2}
}

// border is where a line from the middle of a towards b leaves the box of a, with a little air.
func border(a, b graphNode) (x, y int) {
	const air = 5
	dx, dy := float64(b.X-a.X), float64(b.Y-a.Y)
	t := math.Inf(1)
	if dx != 0 {
		t = min(t, (boxWidth/2+air)/math.Abs(dx))
	}
	if dy != 0 {
		t = min(t, (boxHeight/2+air)/math.Abs(dy))
	}
	return a.X + int(math.Round(t*dx)), a.Y + int(math.Round(t*dy))
}

// clipped is the beginning of a name that would be wider than its box.
func clipped(name string, most int) string {
	if r := []rune(name); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return name
}
