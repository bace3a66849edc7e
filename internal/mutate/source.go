package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// pkg is the package whose code is changed.
type pkg struct {
	dir, name string
	fset      *token.FileSet
	info      *types.Info
	files     []*file
	mutants   []*mutant
}

type file struct {
	path   string
	src    []byte
	inject []injection
}

// injection is text that is put into the source for a mutant. Those at one place are in the order in which they nest.
type injection struct {
	at     int
	closes bool
	depth  int
	text   string
	m      *mutant
}

// mutant is one change.
type mutant struct {
	id            int
	file          *file
	line, endLine int
	what          string
	text          string // the line
	dropped       bool
}

func (m *mutant) String() string {
	return fmt.Sprintf("%s:%d: %s: %s", filepath.Base(m.file.path), m.line, m.what, m.text)
}

// key is what mutants.txt has.
func (m *mutant) key() string {
	return fmt.Sprintf("%s: %s: %s", filepath.Base(m.file.path), m.what, m.text)
}

// load reads the package in dir and finds its mutants.
func load(dir string, files *regexp.Regexp) (*pkg, error) {
	list := exec.Command("go", "list", "-export", "-deps", "-json=ImportPath,Name,Dir,GoFiles,Export,DepOnly", ".")
	list.Dir = dir
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		return nil, err
	}
	p := &pkg{dir: dir, fset: token.NewFileSet()}
	exports := map[string]string{}
	var names []string
	path := ""
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var l struct {
			ImportPath, Name, Dir, Export string
			GoFiles                       []string
			DepOnly                       bool
		}
		if err := d.Decode(&l); err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		exports[l.ImportPath] = l.Export
		if !l.DepOnly {
			names, p.name, path = l.GoFiles, l.Name, l.ImportPath
		}
	}
	var parsed []*ast.File
	for _, name := range names {
		f := &file{path: filepath.Join(dir, name)}
		if f.src, err = os.ReadFile(f.path); err != nil {
			return nil, err
		}
		a, err := parser.ParseFile(p.fset, f.path, f.src, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		parsed = append(parsed, a)
		p.files = append(p.files, f)
	}
	p.info = &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{}}
	lookup := func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) }
	conf := types.Config{Importer: importer.ForCompiler(p.fset, "gc", lookup)}
	if _, err := conf.Check(path, p.fset, parsed, p.info); err != nil {
		return nil, err
	}
	for i, a := range parsed {
		if files.MatchString(filepath.Base(p.files[i].path)) {
			w := &walker{pkg: p, file: p.files[i]}
			for _, d := range a.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil {
					w.function(p.info.Defs[fn.Name].Type().(*types.Signature), fn.Body)
				}
			}
		}
	}
	return p, nil
}

// mutated returns the file with its mutants.
func (f *file) mutated() []byte {
	in := slices.DeleteFunc(slices.Clone(f.inject), func(i injection) bool { return i.m.dropped })
	slices.SortStableFunc(in, func(a, b injection) int {
		switch {
		case a.at != b.at:
			return a.at - b.at
		case a.closes != b.closes && a.closes:
			return -1
		case a.closes != b.closes:
			return 1
		case a.closes:
			return b.depth - a.depth
		default:
			return a.depth - b.depth
		}
	})
	var out bytes.Buffer
	at := 0
	for _, i := range in {
		out.Write(f.src[at:i.at])
		out.WriteString(i.text)
		at = i.at
	}
	out.Write(f.src[at:])
	return out.Bytes()
}

// walker finds the mutants of a function.
type walker struct {
	*pkg
	*file
	depth     int
	signature *types.Signature
}

func (w *walker) function(s *types.Signature, body *ast.BlockStmt) {
	old := w.signature
	w.signature = s
	w.block(body.List)
	w.signature = old
}

func (w *walker) offset(p token.Pos) int { return w.fset.Position(p).Offset }

func (w *walker) text(n ast.Node) string { return string(w.src[w.offset(n.Pos()):w.offset(n.End())]) }

// wrap makes a mutant of n with text before and after it, in which %d is its number.
func (w *walker) wrap(n ast.Node, what, before, after string) {
	m := &mutant{id: len(w.mutants) + 1, file: w.file, line: w.fset.Position(n.Pos()).Line, endLine: w.fset.Position(n.End()).Line, what: what}
	first := bytes.LastIndexByte(w.src[:w.offset(n.Pos())], '\n') + 1
	line, _, _ := bytes.Cut(w.src[first:], []byte("\n"))
	m.text = string(bytes.TrimSpace(line))
	w.mutants = append(w.mutants, m)
	number := func(s string) string { return strings.ReplaceAll(s, "%d", fmt.Sprint(m.id)) }
	w.depth++
	w.inject = append(w.inject, injection{w.offset(n.Pos()), false, w.depth, number(before), m}, injection{w.offset(n.End()), true, w.depth, number(after), m})
}

// inside has f find mutants within what was wrapped last.
func (w *walker) inside(f func()) {
	depth := w.depth
	f()
	w.depth = depth
}

func (w *walker) block(stmts []ast.Stmt) {
	for _, s := range stmts {
		w.inside(func() { w.stmt(s) })
	}
}

func (w *walker) remove(s ast.Stmt, what string) { w.wrap(s, what, "if !mutated(%d) { ", " }") }

func (w *walker) stmt(s ast.Stmt) {
	switch s := s.(type) {
	case *ast.BlockStmt:
		w.block(s.List)
	case *ast.ExprStmt:
		if call, ok := s.X.(*ast.CallExpr); ok && !w.ends(call) {
			w.remove(s, "no call")
		}
		w.expr(s.X)
	case *ast.AssignStmt:
		if s.Tok != token.DEFINE && !blank(s.Lhs) {
			w.remove(s, "no assignment")
		}
		w.exprs(s.Rhs)
	case *ast.IncDecStmt:
		w.remove(s, "no "+s.Tok.String())
	case *ast.SendStmt:
		w.expr(s.Value)
	case *ast.DeferStmt:
		w.remove(s, "no defer")
		w.expr(s.Call)
	case *ast.GoStmt:
		w.expr(s.Call)
	case *ast.BranchStmt:
		if s.Tok == token.BREAK || s.Tok == token.CONTINUE {
			w.remove(s, "no "+s.Tok.String())
		}
	case *ast.ReturnStmt:
		w.returned(s)
	case *ast.IfStmt:
		if s.Init != nil {
			w.inner(s.Init)
		}
		w.condition(s.Cond)
		w.block(s.Body.List)
		if s.Else != nil {
			w.stmt(s.Else)
		}
	case *ast.ForStmt:
		if s.Init != nil {
			w.inner(s.Init)
		}
		if s.Cond != nil {
			w.expr(s.Cond)
		}
		w.block(s.Body.List)
	case *ast.RangeStmt:
		w.expr(s.X)
		w.block(s.Body.List)
	case *ast.SwitchStmt:
		if s.Init != nil {
			w.inner(s.Init)
		}
		if s.Tag != nil {
			w.expr(s.Tag)
		}
		for _, c := range s.Body.List {
			c := c.(*ast.CaseClause)
			for _, e := range c.List {
				if s.Tag == nil {
					w.inside(func() { w.condition(e) })
				}
			}
			w.block(c.Body)
		}
	case *ast.TypeSwitchStmt:
		for _, c := range s.Body.List {
			w.block(c.(*ast.CaseClause).Body)
		}
	case *ast.SelectStmt:
		for _, c := range s.Body.List {
			w.block(c.(*ast.CommClause).Body)
		}
	case *ast.LabeledStmt:
		switch s := s.Stmt.(type) {
		case *ast.ForStmt, *ast.RangeStmt, *ast.SwitchStmt:
			w.stmt(s)
		}
	case *ast.DeclStmt:
		if d, ok := s.Decl.(*ast.GenDecl); ok && d.Tok == token.VAR {
			for _, spec := range d.Specs {
				w.exprs(spec.(*ast.ValueSpec).Values)
			}
		}
	}
}

// inner is for a statement that cannot be wrapped.
func (w *walker) inner(s ast.Stmt) {
	switch s := s.(type) {
	case *ast.ExprStmt:
		w.expr(s.X)
	case *ast.AssignStmt:
		w.exprs(s.Rhs)
	}
}

// ends tells whether a call never returns, so that the code after it may rely on that.
func (w *walker) ends(call *ast.CallExpr) bool {
	id, ok := call.Fun.(*ast.Ident)
	return ok && id.Name == "panic"
}

func blank(lhs []ast.Expr) bool {
	return !slices.ContainsFunc(lhs, func(e ast.Expr) bool { id, ok := e.(*ast.Ident); return !ok || id.Name != "_" })
}

func (w *walker) exprs(es []ast.Expr) {
	for _, e := range es {
		w.inside(func() { w.expr(e) })
	}
}

// condition is for an expression of which something depends.
func (w *walker) condition(e ast.Expr) {
	if b, ok := ast.Unparen(e).(*ast.BinaryExpr); !ok || !logical(b.Op) && !compares(b.Op) {
		if w.constant(e) {
			return
		}
		w.wrap(e, "negated", "((", ") != mutated(%d))")
	}
	w.expr(e)
}

func logical(op token.Token) bool { return op == token.LAND || op == token.LOR }

func compares(op token.Token) bool {
	return op == token.EQL || op == token.NEQ || op == token.LSS || op == token.LEQ || op == token.GTR || op == token.GEQ
}

func (w *walker) constant(e ast.Expr) bool {
	tv, ok := w.info.Types[e]
	return ok && tv.Value != nil
}

func (w *walker) expr(e ast.Expr) {
	switch e := e.(type) {
	case *ast.ParenExpr:
		w.expr(e.X)
	case *ast.UnaryExpr:
		w.expr(e.X)
	case *ast.StarExpr:
		w.expr(e.X)
	case *ast.SelectorExpr:
		w.expr(e.X)
	case *ast.IndexExpr:
		w.expr(e.X)
		if tv := w.info.Types[e.Index]; tv.IsValue() {
			w.inside(func() { w.expr(e.Index) })
		}
	case *ast.SliceExpr:
		w.expr(e.X)
		for _, i := range []ast.Expr{e.Low, e.High, e.Max} {
			if i != nil {
				w.inside(func() { w.expr(i) })
			}
		}
	case *ast.TypeAssertExpr:
		w.expr(e.X)
	case *ast.CompositeLit:
		for _, el := range e.Elts {
			if kv, ok := el.(*ast.KeyValueExpr); ok {
				el = kv.Value
			}
			w.inside(func() { w.expr(el) })
		}
	case *ast.FuncLit:
		w.function(w.info.Types[e].Type.(*types.Signature), e.Body)
	case *ast.CallExpr:
		w.expr(e.Fun)
		w.exprs(e.Args)
	case *ast.BinaryExpr:
		if !w.constant(e) {
			w.binary(e)
		}
	}
}

var (
	boundaries = map[token.Token]string{token.LSS: "<=", token.LEQ: "<", token.GTR: ">=", token.GEQ: ">"}
	opposites  = map[token.Token]string{token.ADD: "-", token.SUB: "+", token.MUL: "+", token.QUO: "*", token.REM: "+"}
)

func (w *walker) binary(e *ast.BinaryExpr) {
	switch {
	case logical(e.Op):
		for i, x := range []ast.Expr{e.X, e.Y} {
			w.inside(func() {
				side := [...]string{"left", "right"}[i]
				if b, ok := ast.Unparen(x).(*ast.BinaryExpr); !ok || b.Op != e.Op { // of a && b && c each part once
					if e.Op == token.LAND {
						w.wrap(x, side+" of && is true", "((", ") || mutated(%d))")
					} else {
						w.wrap(x, side+" of || is false", "((", ") && !mutated(%d))")
					}
				}
				if b, ok := ast.Unparen(x).(*ast.BinaryExpr); ok && compares(b.Op) {
					w.compared(b)
				} else {
					w.expr(x)
				}
			})
		}
	case compares(e.Op):
		w.wrap(e, "negated", "((", ") != mutated(%d))")
		w.compared(e)
	default:
		other := opposites[e.Op]
		if t, ok := w.info.Types[e].Type.Underlying().(*types.Basic); ok && other != "" && t.Info()&types.IsNumeric != 0 && t.Info()&types.IsUntyped == 0 && !w.calls(e) {
			w.wrap(e, e.Op.String()+" is "+other, "mutatedTo(%d, ", fmt.Sprintf(", (%s) %s (%s))", w.text(e.X), other, w.text(e.Y)))
		}
		w.sides(e)
	}
}

// compared is for a comparison that has been negated already, or can be left out.
func (w *walker) compared(e *ast.BinaryExpr) {
	if other, ok := boundaries[e.Op]; ok {
		what := e.Op.String() + " is " + other
		if e.Op == token.LSS || e.Op == token.GTR {
			w.wrap(e, what, "(", fmt.Sprintf(" || mutated(%%d) && (%s) == (%s))", w.text(e.X), w.text(e.Y)))
		} else {
			w.wrap(e, what, "(", fmt.Sprintf(" && !(mutated(%%d) && (%s) == (%s)))", w.text(e.X), w.text(e.Y)))
		}
	}
	w.sides(e)
}

// calls tells whether an expression calls something that may do more than to compute: as a part of both alternatives it would be called twice.
func (w *walker) calls(e ast.Expr) (found bool) {
	ast.Inspect(e, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			tv := w.info.Types[call.Fun]
			found = found || !tv.IsType() && !tv.IsBuiltin()
		}
		return !found
	})
	return found
}

func (w *walker) sides(e *ast.BinaryExpr) {
	w.inside(func() { w.expr(e.X) })
	w.inside(func() { w.expr(e.Y) })
}

// returned is for what a function returns.
func (w *walker) returned(s *ast.ReturnStmt) {
	results := w.signature.Results()
	for i, e := range s.Results {
		w.inside(func() {
			if results.Len() == len(s.Results) {
				w.result(e, results.At(i).Type(), [...]string{"", " (2nd)", " (3rd)", " (4th)", " (5th)"}[min(i, 4)])
			}
			w.expr(e)
		})
	}
}

func (w *walker) result(e ast.Expr, t types.Type, which string) {
	tv := w.info.Types[e]
	if b, ok := ast.Unparen(e).(*ast.BinaryExpr); ok && (logical(b.Op) || compares(b.Op)) {
		return // has its own
	}
	if _, ok := e.(*ast.FuncLit); ok {
		return
	}
	basic, _ := t.Underlying().(*types.Basic)
	switch {
	case types.Identical(t, types.Typ[types.Bool]):
		w.wrap(e, "returns the opposite"+which, "((", ") != mutated(%d))")
	case types.Identical(t, types.Universe.Lookup("error").Type()):
		if !tv.IsNil() {
			w.wrap(e, "returns no error"+which, "mutatedTo[error](%d, ", ", nil)")
		}
	case tv.IsNil() || !types.Identical(tv.Type, t) && tv.Value == nil:
	case basic != nil && basic.Info()&types.IsNumeric != 0 && types.Identical(t, types.Default(tv.Type)):
		w.wrap(e, "returns one more"+which, "mutatedMore(%d, ", ")")
	case basic != nil && basic.Info()&types.IsString != 0 && types.Identical(t, types.Default(tv.Type)):
		if w.text(e) != `""` {
			w.wrap(e, "returns an empty string"+which, "mutatedTo(%d, ", `, "")`)
		}
	default:
		switch t.Underlying().(type) {
		case *types.Slice, *types.Map, *types.Pointer:
			if tv.Value == nil {
				w.wrap(e, "returns nil"+which, "mutatedTo(%d, ", ", nil)")
			}
		}
	}
}

const supportFile = "zz_mutated.go"

// support is the source of what mutants call.
func support(pkg string, n int) []byte {
	return fmt.Appendf(nil, `package %s

import (
	"os"
	"strconv"
	"sync/atomic"
)

var (
	mutatedID, _   = strconv.Atoi(os.Getenv("MUTATE_ID"))
	mutatedFile    = os.Getenv("MUTATE_REACHED")
	mutatedReached [%d]atomic.Bool
)

func mutated(id int) bool {
	if mutatedFile != "" && !mutatedReached[id].Load() && !mutatedReached[id].Swap(true) {
		if f, err := os.OpenFile(mutatedFile, os.O_APPEND|os.O_WRONLY, 0); err == nil {
			_, _ = f.WriteString(strconv.Itoa(id) + "\n")
			_ = f.Close()
		}
	}
	return id == mutatedID
}

func mutatedMore[T interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~uintptr | ~float32 | ~float64
}](id int, x T) T {
	if mutated(id) {
		x++
	}
	return x
}

func mutatedTo[T any](id int, is, other T) T {
	if mutated(id) {
		return other
	}
	return is
}
`, pkg, n+1)
}
