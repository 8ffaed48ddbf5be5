package container

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"sync"

	"berth/fault"
)

// namePattern is the field's own; a leading slash was taken off before.
var namePattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// CheckName returns name without a leading slash, or fault.Invalid in the words that tools know.
func CheckName(name string) (string, error) {
	bare := strings.TrimPrefix(name, "/")
	if !namePattern.MatchString(bare) {
		return "", fault.New(fault.Invalid, "Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	return bare, nil
}

// RandomName returns an adjective_surname pair.
func RandomName() string {
	a, s := adjectives(), surnames()
	return a[rand.IntN(len(a))] + "_" + s[rand.IntN(len(s))]
}

var (
	adjectives = sync.OnceValue(func() []string { return strings.Fields(adjectiveWords) })
	surnames   = sync.OnceValue(func() []string { return strings.Fields(surnameWords) })
)

// People who are remembered for science, engineering, the sea and the arts.
const (
	adjectiveWords = `able agile airy alert amber ample ardent artful astute avid awake balmy benign blithe bold brave breezy bright brisk
buoyant calm candid canny chatty cheery chipper civil clear clever cosy crisp curious daring deft dapper devout
dulcet eager earnest easy elated epic exact fair famed fearless fervent festive fleet fluent fond frank fresh frugal
gallant genial gentle gifted glad gleeful golden graceful grand grateful handy happy hardy hearty honest hopeful humble
ideal jaunty jolly jovial joyful keen kind lively logical loyal lucid lucky mellow merry mindful modest neat nimble noble
patient placid plucky polite proud prudent quick quiet ready robust serene shrewd silent sincere smart snug
sober spry stable steady sturdy subtle sunny suave swift tactful tender thrifty tidy tranquil trusty upbeat valiant
vibrant vivid warm wary wise witty worthy young zany zealous zesty`
	surnameWords = `abbe abel adams agnesi airy alembert amati ampere amundsen anning apgar archer arago arrhenius avogadro
babbage backus bacon baffin banks banneker bardeen bartok bateson beaufort becquerel behaim bell bering bernal bernoulli
berzelius bessel bessemer bethe biot blackwell bohr boltzmann bolyai boole borges born bose boyle bragg brahe braille
braun brunel brunelleschi buffon bunsen burnell cabot cannon cantor cardano carnot carson carver cassini cauchy cavendish
cayley celsius chandra chebyshev cook copernicus coriolis coulomb crick curie cuvier dalton darwin davy dedekind
delambre descartes dewar dijkstra diophantus dirac doppler drake durer earhart eddington edison ehrlich eiffel
einstein elion engelbart ensor eratosthenes erdos euclid euler faraday fermat fermi feynman fibonacci fizeau fleming
foucault fourier franklin fraunhofer fresnel frege fulton gabor galilei galois galton galvani gama gauss geiger germain gibbs
gilbert godel goeppert grimm guericke gutenberg haber hahn haldane halley hamilton harrison harvey heaviside heisenberg
helmholtz henry herschel hertz hevelius hilbert hodgkin hollerith hooke hopper hubble hudson humboldt hutton huygens hypatia
jacobi jacquard jansky jenner joliot joule kapitza kelvin kepler khayyam kirch kirchhoff knuth kovalevsky koch lagrange lamarr
landau laplace lavoisier lawrence leavitt legendre leibniz lenz liebig linnaeus lister lovelace lyell mach magellan
malpighi marconi maury maxwell mayer mcclintock meitner mendel mendeleev mercator messier michelson mirzakhani moseley
nansen napier newcomen newton nobel noether ohm oersted olbers pascal pasteur pauli pauling peano perrin piccard planck
poincare poisson priestley ptolemy ramanujan raman ramsay rayleigh ritchie roemer rontgen rubin russell rutherford sagan sanger scheele
schrodinger seaborg shannon snell somerville stokes swan tartini tereshkova tesla thales torricelli turing tycho vesalius
viete volta wallace watt weber wegener whitney wiener wilkins wren wu yalow young yukawa zeiss zuse`
)

// NameTaken is the error for a name that another container holds.
func NameTaken(name, holder string) error {
	return fault.New(fault.Conflict, "Conflict. The container name %q is already in use by container %q. You have to remove (or rename) that container to be able to reuse that name.", "/"+name, holder)
}
