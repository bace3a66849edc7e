package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// source is what the packages of the repository declare, and what their comments say.
type source struct {
	// names are exported names by package, members those of types, as "Type.Member".
	names, members map[string]map[string]bool
	comments       map[string][]string // by package, each with its place
	aliases        map[string]string   // of types of other packages, both as "package.Type"
}

func readSource(t *testing.T) *source {
	s := &source{make(map[string]map[string]bool), make(map[string]map[string]bool), make(map[string][]string), make(map[string]string)}
	set := token.NewFileSet()
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == "internal" || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && d.Name() != ".."):
			return filepath.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		f, err := parser.ParseFile(set, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		s.file(set, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *source) file(set *token.FileSet, f *ast.File) {
	p := f.Name.Name
	if s.names[p] == nil {
		s.names[p], s.members[p] = make(map[string]bool), make(map[string]bool)
	}
	for _, c := range f.Comments {
		s.comments[p] = append(s.comments[p], set.Position(c.Pos()).String()+": "+c.Text())
	}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil {
				s.names[p][d.Name.Name] = true
				continue
			}
			recv := d.Recv.List[0].Type
			if star, ok := recv.(*ast.StarExpr); ok {
				recv = star.X
			}
			if id, ok := recv.(*ast.Ident); ok {
				s.members[p][id.Name+"."+d.Name.Name] = true
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.ValueSpec:
					for _, n := range spec.Names {
						s.names[p][n.Name] = true
					}
				case *ast.TypeSpec:
					s.names[p][spec.Name.Name] = true
					s.fields(p, spec)
					if of, ok := spec.Type.(*ast.SelectorExpr); ok && spec.Assign.IsValid() {
						s.aliases[p+"."+spec.Name.Name] = of.X.(*ast.Ident).Name + "." + of.Sel.Name
					}
				}
			}
		}
	}
}

func (s *source) fields(p string, spec *ast.TypeSpec) {
	var list *ast.FieldList
	switch typ := spec.Type.(type) {
	case *ast.StructType:
		list = typ.Fields
	case *ast.InterfaceType:
		list = typ.Methods
	default:
		return
	}
	for _, f := range list.List {
		for _, n := range f.Names {
			s.members[p][spec.Name.Name+"."+n.Name] = true
		}
		if len(f.Names) == 0 { // embedded
			name := f.Type
			if sel, ok := name.(*ast.SelectorExpr); ok {
				name = sel.Sel
			}
			if id, ok := name.(*ast.Ident); ok {
				s.members[p][spec.Name.Name+"."+id.Name] = true
			}
		}
	}
}

// has tells whether a package has what is written as Name or Type.Member. What it has by embedding counts, as far as the embedded type is of the same package.
func (s *source) has(p, name string) bool {
	typ, member, isMember := strings.Cut(name, ".")
	if !isMember {
		return s.names[p][typ]
	}
	if s.members[p][name] {
		return true
	}
	if of, ok := s.aliases[p+"."+typ]; ok {
		p, typ, _ = strings.Cut(of, ".")
		return s.has(p, typ+"."+member)
	}
	for m := range s.members[p] {
		if t, embedded, _ := strings.Cut(m, "."); t == typ && s.names[p][embedded] && s.members[p][embedded+"."+member] {
			return true
		}
	}
	return false
}

// TestNames checks that what pages and comments call by a type's name and a member's, or by a package's, is there. The changelog also names what is gone.
func TestNames(t *testing.T) {
	s := readSource(t)
	anywhere := func(name string) bool {
		for p := range s.names {
			if s.has(p, name) {
				return true
			}
		}
		return false
	}
	pages, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append(pages, "../README.md", "../CONTRIBUTING.md", "../SECURITY.md", "../pushhttp/README.md", "../store/sql/README.md") {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("`([a-z]\\w*)\\.([A-Z]\\w*(?:\\.[A-Z]\\w*)?)").FindAllStringSubmatch(string(b), -1) {
			if s.names[m[1]] != nil && !s.has(m[1], m[2]) {
				t.Errorf("%s names %s.%s, which is not there", page, m[1], m[2])
			}
		}
		for _, m := range regexp.MustCompile("`([A-Z]\\w*\\.[A-Z]\\w*)").FindAllStringSubmatch(string(b), -1) {
			if !anywhere(m[1]) {
				t.Errorf("%s names %s, which is not there", page, m[1])
			}
		}
	}
	member := regexp.MustCompile(`(\w+\.)?\b([A-Z]\w*)\.([A-Z]\w*)`)
	for p, comments := range s.comments {
		for _, c := range comments {
			for _, m := range member.FindAllStringSubmatch(c, -1) {
				if name := m[2] + "." + m[3]; m[1] == "" && s.names[p][m[2]] && !s.has(p, name) {
					t.Errorf("%s\nnames %s, which is not there", strings.TrimSpace(c), name)
				}
			}
		}
	}
}
